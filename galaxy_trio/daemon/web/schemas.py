"""The JSON schemas of the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio import DeviceStatus
from galaxy_trio._arguments import MAX_PRIORITY
from galaxy_trio.daemon.store.departures import MAX_DEPARTURES
from galaxy_trio.daemon.store.records import MAX_ERROR, MAX_EXCERPT, TaskState
from galaxy_trio.daemon.web.bodies import INLINE, MAX_CAPABILITIES, MAX_NAME, MAX_TIMEOUT
from galaxy_trio.daemon.web.history import EVENTS

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
    "Error": {"type": "object", "required": ["error"], "properties": {"error": TEXT}},
    "TaskState": {"type": "string", "enum": [state.value for state in TaskState]},
    "TaskRequest": {
        "type": "object",
        "required": ["request"],
        "additionalProperties": False,
        "anyOf": [
            {"properties": {"device": {"type": "null"}}},
            {"properties": {"os": {"type": "null"}, "capabilities": {"maxItems": 0}}},
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
