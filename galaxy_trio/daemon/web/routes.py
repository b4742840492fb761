"""The table of the HTTP interface's operations, from which its routes and its OpenAPI document are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio
from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from galaxy_trio import NoSuchDevice
from galaxy_trio.daemon.refusals import DaemonBusy, Impossible
from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.database import DatabaseAway, StoreError
from galaxy_trio.daemon.store.graphs import NoSuchGraph
from galaxy_trio.daemon.store.queries import IdempotencyConflict, NoSuchTask, WrongState
from galaxy_trio.daemon.web.bodies import INLINE, BadRequest
from galaxy_trio.daemon.web.graph_bodies import InvalidGraph
from galaxy_trio.daemon.web.graph_operations import GRAPH_OPERATIONS
from galaxy_trio.daemon.web.handlers import MAX_WAIT, RECONNECT_TIMEOUT, Handlers, NoSuchDaemon
from galaxy_trio.daemon.web.openapi import Operation, answer, make_document, parameter
from galaxy_trio.daemon.web.page import page_routes
from galaxy_trio.daemon.web.query import MAX_PAGE
from galaxy_trio.daemon.web.schemas import TEXT, ref
from galaxy_trio.errors import GraphError, GraphFileError, GraphTooLarge, NoSuchNode, NotEditable, VersionConflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from galaxy_trio.daemon.directory import Directory
    from galaxy_trio.daemon.graphs import Graphs
    from galaxy_trio.daemon.ownership import Ownership
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
    from galaxy_trio.daemon.web.metrics import Metrics

_TASK_ID: Final = parameter("id", "The task's id.", where="path")
_DEVICE_ID: Final = parameter("id", "The device's name.", where="path")
_DAEMON_NAME: Final = parameter("name", "The daemon's name.", where="path")
_TASK: Final = ref("Task")
_BAD_REQUEST: Final = answer("The request is invalid.")
_NO_TASK: Final = answer("There is no such task.")
_IMPOSSIBLE: Final = answer("No device can ever meet the task's requirements.")
_NO_DEVICE: Final = answer("There is no such device.")
_NOT_ENDED: Final = answer("The task has not ended.")
_BUSY: Final = answer("Too many tasks are queued, or the daemon is stopping.")
_NOT_WRITTEN: Final = answer("The database failed, and nothing was accepted.")

# fmt: off
OPERATIONS: Final = (
    Operation(
        "GET", "/tasks", Handlers.list_tasks, "List tasks in their short form, the newest first.",
        {200: answer("A page of tasks.", ref("Tasks")), 400: _BAD_REQUEST, 404: answer("The task `before` does not exist any more.")},
        parameters=(
            parameter("state", "Only tasks in this state.", ref("TaskState")),
            parameter("device", "Only tasks that run or ran on this device."),
            parameter("graph", "Only tasks of this graph."),
            parameter("node", "Only tasks of nodes with this id: with `graph`, the attempts of a node."),
            parameter("limit", "The maximum number; 100 by default.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
            parameter("before", "Only tasks older than this one: the previous page's `before`."),
        ),
    ),
    Operation(
        "POST", "/tasks", Handlers.submit_task,
        "Submit a task. It is on disk when the response is sent. "
        "With `retries`, it is the first attempt of a graph of one node, which has the task's id and says how all attempts ended.",
        {
            200: answer("It was submitted before, with this idempotency key.", _TASK),
            202: answer("It was accepted.", _TASK),
            400: _BAD_REQUEST,
            404: _NO_DEVICE,
            409: answer("The idempotency key belongs to a task with a different request."),
            413: answer("The body is too large."),
            415: answer("The body is not declared as application/json."),
            422: _IMPOSSIBLE,
            503: _BUSY,
            507: _NOT_WRITTEN,
        },
        body="TaskRequest",
    ),
    Operation(
        "GET", "/tasks/{id}", Handlers.show_task, f"Show a whole task, with its result up to {INLINE:,} bytes.",
        {200: answer("The task.", _TASK), 400: _BAD_REQUEST, 404: _NO_TASK},
        parameters=(
            _TASK_ID,
            parameter("wait", "Seconds to wait for the task's end first.", {"type": "number", "minimum": 0, "maximum": MAX_WAIT}),
        ),
    ),
    Operation(
        "DELETE", "/tasks/{id}", Handlers.cancel_task,
        "Cancel a task. A queued one never begins; a running one has stopped on its device when the response is sent.",
        {
            200: answer("The task as it is now.", _TASK),
            202: answer("Another daemon still stops the task.", _TASK),
            404: _NO_TASK,
            507: _NOT_WRITTEN,
        },
        parameters=(_TASK_ID,),
    ),
    Operation(
        "GET", "/tasks/{id}/result", Handlers.show_result, "Stream a task's result, of any size.",
        {200: answer("The result.", {}), 404: answer("There is no such task, or it has no result."), 409: _NOT_ENDED},
        parameters=(_TASK_ID,),
    ),
    Operation(
        "POST", "/tasks/{id}/retry", Handlers.retry_task, "Rerun a finished task, as a new task with the same retry policy.",
        {
            202: answer("The new task.", _TASK),
            404: answer("There is no such task, or its device was removed."),
            409: _NOT_ENDED,
            422: _IMPOSSIBLE,
            503: _BUSY,
            507: _NOT_WRITTEN,
        },
        parameters=(_TASK_ID,),
    ),
    *GRAPH_OPERATIONS,
    Operation(
        "GET", "/devices", Handlers.list_devices, "List all devices as they are now, in their short form.",
        {200: answer("The devices.", ref("Devices"))},
    ),
    Operation(
        "GET", "/devices/{id}", Handlers.show_device, "Show a whole device as it is now.",
        {200: answer("The device.", ref("Device")), 404: _NO_DEVICE},
        parameters=(_DEVICE_ID,),
    ),
    Operation(
        "POST", "/devices/{id}/reconnect", Handlers.reconnect_device,
        "Reconnect a device immediately, even if reconnecting was given up. "
        f"The response is sent when it is connected, after {RECONNECT_TIMEOUT:g} s at the latest.",
        {200: answer("The device as it is then.", ref("Device")), 404: _NO_DEVICE},
        parameters=(_DEVICE_ID,),
    ),
    Operation(
        "GET", "/events", Handlers.listen,
        "Stream events as server-sent events. The header `Last-Event-ID` resumes an earlier stream, also after a restart of the daemon. "
        "If some of the missed events were deleted, or the id is unknown, an event `reset` comes first.",
        {200: answer("The events.", TEXT, "text/event-stream"), 507: answer("The database failed.")},
    ),
    Operation(
        "GET", "/summary", Handlers.summary, "Count the tasks by state and the devices by status.",
        {200: answer("The numbers.", ref("Summary")), 507: answer("The database failed.")},
    ),
    Operation(
        "GET", "/cluster", Handlers.show_cluster,
        "List the daemons that share the database: those that are alive, then those that died within a day.",
        {200: answer("The daemons.", ref("Cluster")), 507: answer("The database failed.")},
    ),
    Operation(
        "POST", "/cluster/{name}/drain", Handlers.drain_daemon,
        "Let a daemon release its devices to the others. It takes none until it is restarted.",
        {
            202: answer("The daemon was notified.", ref("Cluster")),
            404: answer("There is no such daemon."),
            409: answer("No other daemon can use the database."),
            507: _NOT_WRITTEN,
        },
        parameters=(_DAEMON_NAME,),
    ),
    Operation(
        "GET", "/health", Handlers.health, "Check that the daemon is alive.",
        {200: answer("It is alive.", ref("Health"))},
        needs_token=False,
    ),
    Operation(
        "GET", "/ready", Handlers.ready,
        "Check that the daemon accepts tasks, that it can write them to its disk, and that at least one device is connected.",
        {200: answer("It is ready.", ref("Ready")), 503: answer("It is not ready.", ref("Ready"))},
    ),
    Operation(
        "GET", "/metrics", Handlers.metrics, "Return the metrics for Prometheus.",
        {200: answer("The metrics.", TEXT, "text/plain")},
    ),
    Operation(
        "GET", "/openapi.json", Handlers.openapi, "Return this document.",
        {200: answer("This document.", {"type": "object"})},
    ),
)
# fmt: on
DOCUMENT: Final = make_document(OPERATIONS)

_STATUSES: Final[Mapping[type[Exception], int]] = {
    BadRequest: 400,
    NoSuchTask: 404,
    NoSuchDevice: 404,
    IdempotencyConflict: 409,
    WrongState: 409,
    Impossible: 422,
    DaemonBusy: 503,
    LifeOver: 503,
    NoSuchDaemon: 404,
    NoSuchGraph: 404,
    NoSuchNode: 404,
    NotEditable: 409,
    GraphTooLarge: 413,
    GraphError: 422,
    DatabaseAway: 503,
    StoreError: 507,
}


def make_app(
    store: Store,
    directory: Directory,
    ownership: Ownership,
    task_queue: TaskQueue,
    graphs: Graphs,
    event_stream: ServerSentEventStream,
    metrics: Metrics,
) -> Starlette:
    """The HTTP interface, as an application for any ASGI server."""
    handlers = Handlers(store, directory, ownership, task_queue, graphs, event_stream, metrics, DOCUMENT)
    paths = dict.fromkeys(operation.path for operation in OPERATIONS)
    app = Starlette(
        routes=[*(_route(path, handlers) for path in paths), *page_routes()],
        exception_handlers={
            **{error: _answer_with(status) for error, status in _STATUSES.items()},
            InvalidGraph: _answer_invalid_graph,
            GraphFileError: _answer_invalid_graph,
            VersionConflict: _answer_version_conflict,
            HTTPException: _answer_http_exception,
        },
    )
    # The daemon redirects nothing: a client would send its token to wherever the Host header leads.
    app.router.redirect_slashes = False
    return app


class _NodeId(PathConvertor):
    """The id of a node, which may have slashes and ends of lines."""

    regex = "(?s:.+)"


register_url_convertor("node", _NodeId())


def _route(path: str, handlers: Handlers) -> Route:
    """One route for all operations at a path, so that the answer to another method lists those that are allowed."""
    by_method = {operation.method: operation.handler for operation in OPERATIONS if operation.path == path}

    async def endpoint(request: Request) -> Response:
        return await by_method[request.method if request.method != "HEAD" else "GET"](handlers, request)

    # The metrics show it.
    endpoint.__name__ = path
    return Route(path.replace("{node}", "{node:node}"), endpoint, methods=list(by_method))


def _answer_with(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        await trio.lowlevel.checkpoint()
        return JSONResponse({"error": str(error)}, status)

    return answer


async def _answer_invalid_graph(_request: Request, error: Exception) -> Response:
    invalid = cast("InvalidGraph | GraphFileError", error)
    await trio.lowlevel.checkpoint()
    return JSONResponse({"error": str(invalid), "problems": list(invalid.problems)}, 422)


async def _answer_version_conflict(_request: Request, error: Exception) -> Response:
    conflict = cast("VersionConflict", error)
    await trio.lowlevel.checkpoint()
    return JSONResponse({"error": str(conflict), "version": conflict.version}, 409)


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
