"""The table of the HTTP interface's operations, from which its routes and its OpenAPI document are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from galaxy_trio import NoSuchDevice
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.queries import IdempotencyConflict, NoSuchTask, WrongState
from galaxy_trio.daemon.task_queue import DaemonBusy
from galaxy_trio.daemon.web.bodies import INLINE, BadRequest
from galaxy_trio.daemon.web.handlers import MAX_PAGE, MAX_WAIT, RECONNECT_TIMEOUT, Handlers
from galaxy_trio.daemon.web.openapi import Answer, Operation, Parameter, checked, make_document
from galaxy_trio.daemon.web.page import page_routes
from galaxy_trio.daemon.web.schemas import TEXT, ref

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
    from galaxy_trio.daemon.web.metrics import Metrics

_TASK_ID: Final = Parameter("id", "The task's id.", where="path")
_DEVICE_ID: Final = Parameter("id", "The device's name.", where="path")
_BAD_REQUEST: Final = Answer("The request is invalid.")
_NO_TASK: Final = Answer("There is no such task.")
_NO_DEVICE: Final = Answer("There is no such device.")
_NOT_ENDED: Final = Answer("The task has not ended.")
_BUSY: Final = Answer("Too many tasks are queued, or the daemon is stopping.")
_NOT_WRITTEN: Final = Answer("The database failed, and nothing was accepted.")

OPERATIONS: Final = (
    Operation(
        "GET",
        "/tasks",
        Handlers.list_tasks,
        "List tasks, the newest first.",
        parameters=(
            Parameter("state", "Only tasks in this state.", ref("TaskState")),
            Parameter("device", "Only tasks that run or ran on this device."),
            Parameter(
                "limit",
                "The maximum number of tasks; 100 by default.",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
            ),
            Parameter("before", "Only tasks older than this one: the previous page's `before`."),
        ),
        answers=checked(
            {
                200: Answer("A page of tasks.", ref("Tasks")),
                400: _BAD_REQUEST,
                404: Answer("The task `before` does not exist any more."),
            }
        ),
    ),
    Operation(
        "POST",
        "/tasks",
        Handlers.submit_task,
        "Submit a task. It is on disk when the response is sent.",
        body=ref("TaskRequest"),
        answers=checked(
            {
                200: Answer("It was submitted before, with this idempotency key.", ref("Task")),
                202: Answer("It was accepted.", ref("Task")),
                400: _BAD_REQUEST,
                404: _NO_DEVICE,
                409: Answer("The idempotency key belongs to a task with a different request."),
                413: Answer("The body is too large."),
                415: Answer("The body is not declared as application/json."),
                503: _BUSY,
                507: _NOT_WRITTEN,
            }
        ),
    ),
    Operation(
        "GET",
        "/tasks/{id}",
        Handlers.show_task,
        f"Show a task, with its result up to {INLINE:,} bytes.",
        parameters=(
            _TASK_ID,
            Parameter(
                "wait",
                "Seconds to wait for the task's end before the response is sent.",
                {"type": "number", "minimum": 0, "maximum": MAX_WAIT},
            ),
        ),
        answers=checked({200: Answer("The task.", ref("Task")), 400: _BAD_REQUEST, 404: _NO_TASK}),
    ),
    Operation(
        "DELETE",
        "/tasks/{id}",
        Handlers.cancel_task,
        "Cancel a task. A queued one never begins; a running one has stopped on its device when the response is sent.",
        parameters=(_TASK_ID,),
        answers=checked({200: Answer("The task as it is now.", ref("Task")), 404: _NO_TASK, 507: _NOT_WRITTEN}),
    ),
    Operation(
        "GET",
        "/tasks/{id}/result",
        Handlers.show_result,
        "Stream a task's result, of any size.",
        parameters=(_TASK_ID,),
        answers=checked(
            {
                200: Answer("The result.", {}),
                404: Answer("There is no such task, or it has no result."),
                409: _NOT_ENDED,
            }
        ),
    ),
    Operation(
        "POST",
        "/tasks/{id}/retry",
        Handlers.retry_task,
        "Rerun a finished task, as a new task.",
        parameters=(_TASK_ID,),
        answers=checked(
            {
                202: Answer("The new task.", ref("Task")),
                404: _NO_TASK,
                409: _NOT_ENDED,
                503: _BUSY,
                507: _NOT_WRITTEN,
            }
        ),
    ),
    Operation(
        "GET",
        "/devices",
        Handlers.list_devices,
        "List all devices as they are now.",
        answers=checked({200: Answer("The devices.", ref("Devices"))}),
    ),
    Operation(
        "GET",
        "/devices/{id}",
        Handlers.show_device,
        "Show a device as it is now.",
        parameters=(_DEVICE_ID,),
        answers=checked({200: Answer("The device.", ref("Device")), 404: _NO_DEVICE}),
    ),
    Operation(
        "POST",
        "/devices/{id}/reconnect",
        Handlers.reconnect_device,
        "Reconnect a device immediately, even if reconnecting was given up. "
        f"The response is sent when it is connected, after {RECONNECT_TIMEOUT:g} s at the latest.",
        parameters=(_DEVICE_ID,),
        answers=checked({200: Answer("The device as it is then.", ref("Device")), 404: _NO_DEVICE}),
    ),
    Operation(
        "GET",
        "/events",
        Handlers.events,
        "Stream events as server-sent events. The header `Last-Event-ID` resumes an earlier stream.",
        id="listen",
        answers={200: Answer("The events.", TEXT, "text/event-stream")},
    ),
    Operation(
        "GET",
        "/summary",
        Handlers.summary,
        "Count the tasks by state and the devices by status.",
        answers=checked({200: Answer("The numbers.", ref("Summary")), 507: Answer("The database failed.")}),
    ),
    Operation(
        "GET",
        "/health",
        Handlers.health,
        "Check that the daemon is alive.",
        needs_token=False,
        answers=checked({200: Answer("It is alive.", ref("Health"))}),
    ),
    Operation(
        "GET",
        "/ready",
        Handlers.ready,
        "Check that the daemon accepts tasks, and that at least one device is connected.",
        answers=checked({200: Answer("It is ready.", ref("Ready")), 503: Answer("It is not ready.", ref("Ready"))}),
    ),
    Operation(
        "GET",
        "/metrics",
        Handlers.metrics,
        "Return the metrics for Prometheus.",
        answers=checked({200: Answer("The metrics.", TEXT, "text/plain")}),
    ),
    Operation(
        "GET",
        "/openapi.json",
        Handlers.openapi,
        "Return this document.",
        answers=checked({200: Answer("This document.", {"type": "object"})}),
    ),
)
DOCUMENT: Final = make_document(OPERATIONS)

_STATUSES: Final[Mapping[type[Exception], int]] = {
    BadRequest: 400,
    NoSuchTask: 404,
    NoSuchDevice: 404,
    IdempotencyConflict: 409,
    WrongState: 409,
    DaemonBusy: 503,
    StoreError: 507,
}


def make_app(
    store: Store,
    constellation: Constellation,
    task_queue: TaskQueue,
    event_stream: ServerSentEventStream,
    metrics: Metrics,
) -> Starlette:
    """The HTTP interface, as an application for any ASGI server."""
    handlers = Handlers(store, constellation, task_queue, event_stream, metrics, DOCUMENT)
    paths = dict.fromkeys(operation.path for operation in OPERATIONS)
    return Starlette(
        routes=[*(_route(path, handlers) for path in paths), *page_routes()],
        exception_handlers={
            **{error: _answer_with(status) for error, status in _STATUSES.items()},
            HTTPException: _answer_http_exception,
        },
    )


def _route(path: str, handlers: Handlers) -> Route:
    """One route for all operations at a path, so that the answer to another method lists those that are allowed."""
    by_method = {operation.method: operation.handler for operation in OPERATIONS if operation.path == path}

    async def endpoint(request: Request) -> Response:
        return await by_method[request.method if request.method != "HEAD" else "GET"](handlers, request)

    # The metrics show it.
    endpoint.__name__ = next(iter(by_method.values())).__name__
    return Route(path, endpoint, methods=list(by_method))


def _answer_with(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        await trio.lowlevel.checkpoint()
        return JSONResponse({"error": str(error)}, status)

    return answer


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    refusal = cast("HTTPException", error)
    await trio.lowlevel.checkpoint()
    path = request.url.path[:200]
    sentences = {
        404: f"there is no path {path!r}: see /openapi.json",
        405: f"{request.method[:20]} is not allowed at {path!r}: see /openapi.json",
    }
    message = sentences.get(refusal.status_code, refusal.detail)
    return JSONResponse({"error": message}, refusal.status_code, refusal.headers)
