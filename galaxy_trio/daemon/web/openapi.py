"""The HTTP interface as OpenAPI 3.1: what ``GET /openapi.json`` answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio import DeviceStatus, __version__
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.web.bodies import INLINE, MAX_NAME, MAX_TIMEOUT

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_TEXT: Final[JSON] = {"type": "string"}
_TEXT_OR_NULL: Final[JSON] = {"type": ["string", "null"]}
_NAME_OR_NULL: Final[dict[str, JSON]] = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_NAME}
_TIME_OR_NULL: Final[JSON] = {"type": ["string", "null"], "format": "date-time"}


def _content(schema: JSON, media_type: str = "application/json") -> JSON:
    return {media_type: {"schema": schema}}


def _ref(name: str) -> JSON:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers(**answers: tuple[str, JSON]) -> JSON:
    """Answers by status, written ``s202``."""
    return _with_refusals(
        {
            status.removeprefix("s"): {"description": description, "content": _content(schema)}
            for status, (description, schema) in answers.items()
        }
    )


def _with_refusals(answers: dict[str, JSON]) -> JSON:
    """All routes may refuse a token, a host, and an origin."""
    refusals = (
        ("401", "The token is missing or wrong."),
        ("403", "It comes from another site."),
        ("421", "The daemon has another name."),
    )
    for status, description in refusals:
        answers[status] = {"description": description, "content": _content(_ref("Error"))}
    return answers


def _parameter(name: str, where: str, schema: JSON, description: str) -> JSON:
    return {"name": name, "in": where, "schema": schema, "description": description, "required": where == "path"}


_TASK_ID: Final = _parameter("id", "path", _TEXT, "The task's id.")
_DEVICE_ID: Final = _parameter("id", "path", _TEXT, "The device's name.")
_NO_TASK: Final[tuple[str, JSON]] = ("There is no such task.", _ref("Error"))
_NO_DEVICE: Final[tuple[str, JSON]] = ("There is no such device.", _ref("Error"))
_BAD: Final[tuple[str, JSON]] = ("Something in the request is wrong.", _ref("Error"))
_BUSY: Final[tuple[str, JSON]] = ("Too many tasks wait, or the daemon is being stopped.", _ref("Error"))
_NO_ROOM: Final[tuple[str, JSON]] = ("It could not be written; nothing was accepted.", _ref("Error"))

DOCUMENT: Final[dict[str, JSON]] = {
    "openapi": "3.1.0",
    "info": {"title": "galaxy-trio daemon", "version": __version__},
    "security": [{"token": []}],
    "paths": {
        "/tasks": {
            "post": {
                "operationId": "submit_task",
                "summary": "Give a device a task; it is on disk when the answer comes.",
                "requestBody": {"required": True, "content": _content(_ref("TaskRequest"))},
                "responses": _answers(
                    s200=("It was given before, with this idempotency key.", _ref("Task")),
                    s202=("It is accepted.", _ref("Task")),
                    s400=_BAD,
                    s404=_NO_DEVICE,
                    s409=("The idempotency key was used for another task.", _ref("Error")),
                    s413=("The body is too large.", _ref("Error")),
                    s415=("The body is to be application/json.", _ref("Error")),
                    s503=_BUSY,
                    s507=_NO_ROOM,
                ),
            },
            "get": {
                "operationId": "list_tasks",
                "summary": "Tasks, the newest first.",
                "parameters": [
                    _parameter("state", "query", _ref("TaskState"), "Only those in this state."),
                    _parameter("device", "query", _TEXT, "Only those that ran, or run, on this device."),
                    _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000}, "How many; 100."),
                    _parameter("before", "query", _TEXT, "Only those older than this one: the page before's `before`."),
                ],
                "responses": _answers(
                    s200=("Some tasks.", _ref("Tasks")),
                    s400=_BAD,
                    s404=("There is no task `before` any more.", _ref("Error")),
                ),
            },
        },
        "/tasks/{id}": {
            "get": {
                "operationId": "show_task",
                "summary": f"A task, and its result if that is not above {INLINE:,} bytes.",
                "parameters": [
                    _TASK_ID,
                    _parameter(
                        "wait",
                        "query",
                        {"type": "number", "minimum": 0, "maximum": 300},
                        "Seconds to wait for its end before it is answered.",
                    ),
                ],
                "responses": _answers(s200=("The task.", _ref("Task")), s400=_BAD, s404=_NO_TASK),
            },
            "delete": {
                "operationId": "cancel_task",
                "summary": "Cancel it: it will not begin, or it is stopped on its device before this is answered.",
                "parameters": [_TASK_ID],
                "responses": _answers(s200=("The task as it is now.", _ref("Task")), s404=_NO_TASK, s507=_NO_ROOM),
            },
        },
        "/tasks/{id}/result": {
            "get": {
                "operationId": "show_result",
                "summary": "Its result, whatever its size.",
                "parameters": [_TASK_ID],
                "responses": _answers(
                    s200=("The result.", {}),
                    s404=("There is no such task, or it has no result.", _ref("Error")),
                    s409=("It has not ended.", _ref("Error")),
                ),
            }
        },
        "/tasks/{id}/retry": {
            "post": {
                "operationId": "retry_task",
                "summary": "Run a task that has ended once more, as a new task.",
                "parameters": [_TASK_ID],
                "responses": _answers(
                    s202=("The new task.", _ref("Task")),
                    s404=_NO_TASK,
                    s409=("It has not ended.", _ref("Error")),
                    s503=_BUSY,
                    s507=_NO_ROOM,
                ),
            }
        },
        "/devices": {
            "get": {
                "operationId": "list_devices",
                "summary": "All devices as they are now.",
                "responses": _answers(s200=("The devices.", _ref("Devices"))),
            }
        },
        "/devices/{id}": {
            "get": {
                "operationId": "show_device",
                "summary": "A device as it is now.",
                "parameters": [_DEVICE_ID],
                "responses": _answers(s200=("The device.", _ref("Device")), s404=_NO_DEVICE),
            }
        },
        "/devices/{id}/reconnect": {
            "post": {
                "operationId": "reconnect_device",
                "summary": "Connect it anew, at once, also if it was given up; answered when it is connected, after 30 s at the latest.",
                "parameters": [_DEVICE_ID],
                "responses": _answers(s200=("The device as it is then.", _ref("Device")), s404=_NO_DEVICE),
            }
        },
        "/events": {
            "get": {
                "operationId": "listen",
                "summary": "What happens, as server-sent events; `Last-Event-ID` takes it up again.",
                "responses": {"200": {"description": "Events.", "content": _content(_TEXT, "text/event-stream")}},
            }
        },
        "/summary": {
            "get": {
                "operationId": "summary",
                "summary": "How many tasks there are in each state, and devices of each status.",
                "responses": _answers(
                    s200=("The numbers.", _ref("Summary")), s507=("The database fails.", _ref("Error"))
                ),
            }
        },
        "/health": {
            "get": {
                "operationId": "health",
                "security": [],
                "summary": "Whether the daemon lives.",
                "responses": _answers(s200=("It does.", _ref("Health"))),
            }
        },
        "/ready": {
            "get": {
                "operationId": "ready",
                "summary": "Whether a task would be taken, and any device is connected.",
                "responses": _answers(s200=("It would.", _ref("Ready")), s503=("It would not.", _ref("Ready"))),
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "For Prometheus.",
                "responses": _with_refusals(
                    {"200": {"description": "Metrics.", "content": _content(_TEXT, "text/plain")}}
                ),
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "responses": _answers(s200=("It.", {"type": "object"})),
            }
        },
    },
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
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
                    "device": {**_NAME_OR_NULL, "description": "Which device; without it, any that fits."},
                    "os": {**_NAME_OR_NULL, "description": "What the device must run, if `device` is not given."},
                    "capabilities": {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
                        "description": "What it must be able to do, if `device` is not given.",
                    },
                    "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT, "default": 1000},
                    "idempotency_key": {
                        **_NAME_OR_NULL,
                        "description": "The same key gives the same task, however often it is sent.",
                    },
                },
            },
            "Task": {
                "type": "object",
                "required": ["id", "state", "request", "wants", "created"],
                "properties": {
                    "id": _TEXT,
                    "state": _ref("TaskState"),
                    "request": _TEXT,
                    "wants": {
                        "type": "object",
                        "properties": {
                            "device": _TEXT_OR_NULL,
                            "os": _TEXT_OR_NULL,
                            "capabilities": {"type": "array", "items": _TEXT},
                        },
                    },
                    "timeout": {"type": "number"},
                    "idempotency_key": _TEXT_OR_NULL,
                    "device": {"type": ["string", "null"], "description": "On which it runs, or ran."},
                    "created": {"type": "string", "format": "date-time"},
                    "started": _TIME_OR_NULL,
                    "ended": _TIME_OR_NULL,
                    "error": _TEXT_OR_NULL,
                    "retry_of": _TEXT_OR_NULL,
                    "result_size": {"type": ["integer", "null"], "description": "Bytes."},
                    "result_url": _TEXT_OR_NULL,
                    "result": {"description": "Its result, where that is small and was asked for with the task."},
                },
            },
            "Tasks": {
                "type": "object",
                "required": ["tasks", "before"],
                "properties": {"tasks": {"type": "array", "items": _ref("Task")}, "before": _TEXT_OR_NULL},
            },
            "Device": {
                "type": "object",
                "required": ["device_id", "status", "running", "queued"],
                "properties": {
                    "device_id": _TEXT,
                    "status": {"type": "string", "enum": [status.value for status in DeviceStatus]},
                    "os": _TEXT_OR_NULL,
                    "capabilities": {"type": "array", "items": _TEXT},
                    "running": {"type": "integer"},
                    "queued": {"type": "integer"},
                    "problem": _TEXT_OR_NULL,
                },
            },
            "Devices": {
                "type": "object",
                "required": ["devices"],
                "properties": {"devices": {"type": "array", "items": _ref("Device")}},
            },
            "Health": {"type": "object", "required": ["status"], "properties": {"status": _TEXT}},
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
        },
    },
}
