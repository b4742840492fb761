"""The JSON schemas of the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio import DeviceStatus
from galaxy_trio._arguments import MAX_PRIORITY
from galaxy_trio.daemon.store.departures import MAX_DEPARTURES
from galaxy_trio.daemon.store.records import MAX_ERROR, MAX_EXCERPT, TaskState
from galaxy_trio.daemon.task_limits import MAX_CAPABILITIES, MAX_NAME, MAX_TIMEOUT
from galaxy_trio.daemon.web.bodies import INLINE
from galaxy_trio.daemon.web.graph_schemas import GRAPH_SCHEMAS
from galaxy_trio.daemon.web.history import EVENTS
from galaxy_trio.graph.backoff import MAX_BACKOFF
from galaxy_trio.graph.model import BACKOFF, MAX_RETRIES

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

TEXT: Final[JSON] = {"type": "string"}
_TEXT_OR_NULL: Final[JSON] = {"type": ["string", "null"]}
_NAME_OR_NULL: Final[dict[str, JSON]] = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_NAME}
_TIME_OR_NULL: Final[JSON] = {"type": ["string", "null"], "format": "date-time"}


def ref(name: str) -> JSON:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: Final[dict[str, JSON]] = {
    **GRAPH_SCHEMAS,
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": TEXT,
            "problems": {
                "type": "array",
                "items": TEXT,
                "description": "Of a graph, or an edit of one: all problems that were found, each with its path.",
            },
            "version": {"type": "integer", "description": "That of the graph, if the request named another one."},
        },
    },
    "TaskState": {"type": "string", "enum": [state.value for state in TaskState]},
    "TaskRequest": {
        "type": "object",
        "required": ["request"],
        "additionalProperties": False,
        "allOf": [
            {
                "anyOf": [
                    {"properties": {"device": {"type": "null"}}},
                    {"properties": {"os": {"type": "null"}, "capabilities": {"maxItems": 0}}},
                ]
            },
            {
                "anyOf": [
                    {"properties": {"backoff": {"type": "null"}, "retry_lost": {"enum": [None, False]}}},
                    {"required": ["retries"], "properties": {"retries": {"type": "integer", "minimum": 1}}},
                ]
            },
        ],
        "properties": {
            "request": {"type": "string", "minLength": 1, "description": "What to do, in words."},
            "device": {**_NAME_OR_NULL, "description": "The device that runs it; without it, any device that fits."},
            "os": {
                **_NAME_OR_NULL,
                "description": "The operating system that the device must have; only without `device`.",
            },
            "capabilities": {
                "type": "array",
                "maxItems": MAX_CAPABILITIES,
                "items": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
                "description": "The capabilities that the device must have; only without `device`.",
            },
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT, "default": 1000},
            "priority": {
                "type": ["integer", "null"],
                "minimum": -MAX_PRIORITY,
                "maximum": MAX_PRIORITY,
                "default": 0,
                "description": "Of the tasks that wait, the highest priority begins first, then the task that was accepted first.",
            },
            "retries": {
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": MAX_RETRIES,
                "default": 0,
                "description": "The maximum number of further attempts after it has failed. Each is a task of its own, with `retry_of`.",
            },
            "backoff": {
                "type": ["number", "null"],
                "minimum": 0,
                "maximum": MAX_BACKOFF,
                "default": BACKOFF,
                "description": "The longest wait before the first of them, in seconds; it doubles with each. Only with `retries`.",
            },
            "retry_lost": {
                "type": ["boolean", "null"],
                "default": False,
                "description": (
                    "Whether it is tried again also if it is `lost`: it may have run, and then runs twice. Only with `retries`."
                ),
            },
            "idempotency_key": {
                **_NAME_OR_NULL,
                "description": "Submitting again with the same key returns the same task.",
            },
        },
    },
    "Task": {
        "type": "object",
        "description": (
            f"`GET /tasks/{{id}}` returns the whole task. Elsewhere, `request` and `error` have their first {MAX_EXCERPT:,} bytes."
        ),
        "required": ["id", "state", "request", "request_size", "error_size", "wants", "created"],
        "properties": {
            "id": TEXT,
            "number": {"type": "integer", "description": "Its place in the order of acceptance."},
            "state": ref("TaskState"),
            "request": TEXT,
            "request_size": {"type": "integer", "description": "The size of the whole request, in bytes."},
            "wants": {
                "type": "object",
                "properties": {
                    "device": _TEXT_OR_NULL,
                    "os": _TEXT_OR_NULL,
                    "capabilities": {"type": "array", "items": TEXT},
                },
            },
            "timeout": {"type": "number"},
            "priority": {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
            "idempotency_key": _TEXT_OR_NULL,
            "device": {"type": ["string", "null"], "description": "The device that runs or ran it."},
            "created": {"type": "string", "format": "date-time"},
            "started": _TIME_OR_NULL,
            "ended": _TIME_OR_NULL,
            "error": {
                "type": ["string", "null"],
                "description": f"The reason why it did not complete; of a longer one {MAX_ERROR:,} bytes, which say so.",
            },
            "error_size": {"type": ["integer", "null"], "description": "The size of the whole error, in bytes."},
            "retry_of": _TEXT_OR_NULL,
            "graph": {"type": ["string", "null"], "description": "The graph for whose `node` it runs."},
            "node": _TEXT_OR_NULL,
            "history": {
                "type": "array",
                "description": (
                    f"What happened to it, the oldest first; of devices that had left before it ran, the last {MAX_DEPARTURES}. "
                    "Only `GET /tasks/{id}` returns it."
                ),
                "items": {
                    "type": "object",
                    "required": ["time", "event"],
                    "properties": {
                        "time": {"type": "string", "format": "date-time"},
                        "event": {"type": "string", "enum": list(EVENTS)},
                        "device": {"type": "string", "description": "Where it was sent, or which device had left."},
                    },
                },
            },
            "result_size": {"type": ["integer", "null"], "description": "In bytes."},
            "result_url": _TEXT_OR_NULL,
            "result": {"description": f"Its result, up to {INLINE:,} bytes. Only `GET /tasks/{{id}}` returns it."},
        },
    },
    "Tasks": {
        "type": "object",
        "required": ["tasks", "before"],
        "properties": {"tasks": {"type": "array", "items": ref("Task")}, "before": _TEXT_OR_NULL},
    },
    "Device": {
        "type": "object",
        "description": (
            f"`GET /devices` and events have the first {MAX_EXCERPT:,} bytes of `capabilities` and `problem`, `GET /devices/{{id}}` all."
        ),
        "required": ["device_id", "status", "running", "queued", "capability_count", "problem_size"],
        "properties": {
            "device_id": TEXT,
            "owner": {
                "type": ["string", "null"],
                "description": "The name of the daemon that keeps it connected; null while none does.",
            },
            "status": {"type": "string", "enum": [status.value for status in DeviceStatus]},
            "os": _TEXT_OR_NULL,
            "capabilities": {"type": "array", "items": TEXT},
            "capability_count": {"type": "integer", "description": "The number of all capabilities."},
            "running": {"type": "integer"},
            "queued": {"type": "integer"},
            "problem": _TEXT_OR_NULL,
            "problem_size": {"type": ["integer", "null"], "description": "The size of the whole problem, in bytes."},
        },
    },
    "Devices": {
        "type": "object",
        "required": ["devices"],
        "properties": {"devices": {"type": "array", "items": ref("Device")}},
    },
    "Cluster": {
        "type": "object",
        "required": ["now", "daemons", "devices", "unowned"],
        "properties": {
            "now": {
                "type": "string",
                "format": "date-time",
                "description": "By the database's clock, as all times here.",
            },
            "daemons": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": [
                        "id",
                        "name",
                        "answers",
                        "started",
                        "expires",
                        "died",
                        "draining",
                        "devices",
                        "running",
                    ],
                    "properties": {
                        "id": {"type": "string", "description": "A new one each time that the daemon gets a lease."},
                        "name": TEXT,
                        "url": _TEXT_OR_NULL,
                        "answers": {"type": "boolean", "description": "Whether this daemon has answered the request."},
                        "started": {"type": "string", "format": "date-time"},
                        "expires": {
                            "type": ["string", "null"],
                            "description": "The end of its lease; null with SQLite, which needs none.",
                        },
                        "died": {
                            "type": ["string", "null"],
                            "description": "When it was stopped, or found to be dead; null while it is alive.",
                        },
                        "draining": {"type": "boolean", "description": "Whether it gives its devices to the others."},
                        "devices": {"type": "integer", "description": "The number of devices that it owns."},
                        "running": {"type": "integer", "description": "The number of tasks that it runs."},
                    },
                },
            },
            "devices": {"type": "integer", "description": "The number of all devices."},
            "unowned": {"type": "integer", "description": "Those that no daemon owns at the moment."},
        },
    },
    "Health": {"type": "object", "required": ["status"], "properties": {"status": TEXT}},
    "Summary": {
        "type": "object",
        "required": ["tasks", "devices"],
        "properties": {
            "tasks": {"type": "object", "additionalProperties": {"type": "integer"}},
            "devices": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
    },
    "Ready": {
        "type": "object",
        "required": ["ready", "problem", "devices", "connected"],
        "properties": {
            "ready": {"type": "boolean"},
            "problem": _TEXT_OR_NULL,
            "devices": {"type": "integer"},
            "connected": {"type": "integer"},
        },
    },
}
