"""Handles the requests of the HTTP interface; see `routes` for its table of operations."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import JSONResponse, Response, StreamingResponse

from galaxy_trio import DeviceStatus
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.queries import NoSuchTask, WrongState
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.short_task import short_task
from galaxy_trio.daemon.web.bodies import INLINE, BadRequest, parse_task
from galaxy_trio.daemon.web.cluster_form import cluster_as_json
from galaxy_trio.daemon.web.graph_handlers import GraphHandlers
from galaxy_trio.daemon.web.query import page_size, query_of
from galaxy_trio.daemon.web.short_forms import short_device, whole_device, whole_task
from galaxy_trio.events import CONNECTED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import Send

    from galaxy_trio import DeviceStatistics
    from galaxy_trio.daemon.directory import Directory
    from galaxy_trio.daemon.graphs import Graphs
    from galaxy_trio.daemon.ownership import Ownership
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
    from galaxy_trio.daemon.web.metrics import Metrics
    from galaxy_trio.messages import JSON

logger: Final = logging.getLogger(__name__)

MAX_WAIT: Final = 300
"""Maximum seconds to wait for the end of a task."""
RECONNECT_TIMEOUT: Final = 30.0
"""Maximum seconds to wait for a device to reconnect."""
_IN_ONE_PIECE: Final = 2**16
"""Bytes that are sent in one piece, of a task's texts or of a list."""
_encoder: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

_UNBUFFERED: Final = {"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"}
"""Headers of a stream of events: nginx passes each event on immediately, and no proxy compresses them together."""


class NoSuchDaemon(Exception):
    """There is no daemon of this name, or it has died."""


class Handlers(GraphHandlers):
    """The handlers of all operations."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        ownership: Ownership,
        task_queue: TaskQueue,
        graphs: Graphs,
        event_stream: ServerSentEventStream,
        metrics: Metrics,
        document: Mapping[str, JSON],
    ) -> None:
        super().__init__(store, graphs)
        self._store = store
        self._directory = directory
        self._ownership = ownership
        self._task_queue = task_queue
        self._event_stream = event_stream
        self._metrics = metrics
        self._document = document

    async def submit_task(self, request: Request) -> Response:
        """Accept a task; it is on disk when the response is sent."""
        asked = await parse_task(await request.body())
        record, is_new = await self._task_queue.submit(asked)
        return JSONResponse(short_task(record), 202 if is_new else 200, {"Location": f"/tasks/{record.id}"})

    async def list_tasks(self, request: Request) -> Response:
        """A page of tasks, the newest first."""
        query = query_of(request, "state", "device", "graph", "node", "limit", "before")
        state = query.get("state")
        if state is not None and state not in list(TaskState):
            raise BadRequest(f"state: expected one of {', '.join(TaskState)}")
        limit = page_size(query.get("limit", "100"))
        records = await self._store.page(
            state=None if state is None else TaskState(state),
            device=query.get("device"),
            graph=query.get("graph"),
            node=query.get("node"),
            limit=limit,
            before=query.get("before"),
        )
        following = records[-1].id if len(records) == limit else None
        return _Stream(_page(records, following), media_type="application/json")

    async def show_task(self, request: Request) -> Response:
        """A whole task, with its result if that is small. With ``wait``, wait for its end first."""
        task_id, seconds = request.path_params["id"], _seconds_to_wait(request)
        if seconds:
            async with _until_left(request):
                await self._task_queue.wait(task_id, seconds)
        record = await self._task_queue.wait(task_id, 0)
        result_size = INLINE + 1 if record.result_size is None else record.result_size
        with_result = result_size <= INLINE
        pieces = whole_task(self._store, record, with_result=with_result)
        size = record.request_size + (record.error_size or 0) + (result_size if with_result else 0)
        if size > _IN_ONE_PIECE:
            return _Stream(pieces, media_type="application/json")
        return Response(b"".join([piece async for piece in pieces]), media_type="application/json")

    async def show_result(self, request: Request) -> Response:
        """A result of any size, streamed."""
        record = await self._task_queue.wait(request.path_params["id"], 0)
        if record.result_size is None:
            if record.state.ended:
                raise NoSuchTask(f"task {record.id} has no result: it {record.state.in_words}")
            raise WrongState(f"task {record.id} has no result yet: it {record.state.in_words}")
        return _Stream(
            self._store.read_result(record.id),
            media_type="application/json",
            headers={"Content-Length": str(record.result_size)},
        )

    async def cancel_task(self, request: Request) -> Response:
        """Cancel a task, whether it is queued or running."""
        record = await self._task_queue.cancel(request.path_params["id"])
        return JSONResponse(short_task(record), 200 if record.state.ended else 202)

    async def retry_task(self, request: Request) -> Response:
        """Rerun a finished task, as a new task."""
        record = await self._task_queue.retry(request.path_params["id"])
        return JSONResponse(short_task(record), 202, {"Location": f"/tasks/{record.id}"})

    async def list_devices(self, _request: Request) -> Response:
        """All devices."""
        await self._directory.loaded.wait()
        return JSONResponse({"devices": [self._shown(device, short_device) for device in self._directory.statistics()]})

    async def show_device(self, request: Request) -> Response:
        """A device."""
        await self._directory.loaded.wait()
        return JSONResponse(self._device(request.path_params["id"]))

    def _device(self, name: str) -> dict[str, object]:
        self._directory.check(name)
        [device] = [device for device in self._directory.statistics() if device.device_id == name]
        return self._shown(device, whole_device)

    def _shown(
        self, device: DeviceStatistics, form: Callable[[DeviceStatistics, int], dict[str, object]]
    ) -> dict[str, object]:
        name = device.device_id
        return {**form(device, self._task_queue.queued_for(name)), "owner": self._directory.owner_of(name)}

    async def reconnect_device(self, request: Request) -> Response:
        """Reconnect a device, and wait for it."""
        name = request.path_params["id"]
        await self._directory.loaded.wait()
        self._device(name)
        with trio.move_on_after(RECONNECT_TIMEOUT):
            async with _until_left(request):
                await self._ownership.reconnect(name)
        return JSONResponse(self._device(name))

    async def show_cluster(self, _request: Request) -> Response:
        """The daemons of the cluster."""
        await self._directory.loaded.wait()
        return JSONResponse(await self._cluster())

    async def drain_daemon(self, request: Request) -> Response:
        """Let a daemon of the cluster drain."""
        name = request.path_params["name"]
        if not self._store.is_shared:
            raise WrongState(
                "no other daemon can use this daemon's database, and take its devices: stop the daemon instead"
            )
        daemons = (await self._store.read_daemons()).daemons
        names = {daemon.life.id: daemon.life.name for daemon in daemons if daemon.life.died is None}
        if name not in names.values():
            raise NoSuchDaemon(f"there is no daemon {name!r}{did_you_mean_or_known(name, names.values())}")
        await self._ownership.drain_daemons([life for life, found in names.items() if found == name])
        return JSONResponse(await self._cluster(), 202)

    async def _cluster(self) -> dict[str, object]:
        return cluster_as_json(await self._store.read_daemons(), self._store.life, len(self._directory.names))

    async def listen(self, request: Request) -> Response:
        """The events, streamed."""
        await trio.lowlevel.checkpoint()
        if request.method == "HEAD":
            # The response has no body, so it ends here.
            response = Response(headers=_UNBUFFERED, media_type="text/event-stream")
            del response.headers["Content-Length"]
            return response
        events = await self._event_stream.listen(request.headers.get("Last-Event-ID"))
        return _Stream(_opened(events), media_type="text/event-stream", headers=_UNBUFFERED)

    async def health(self, _request: Request) -> Response:
        """Confirm that the daemon is alive."""
        await trio.lowlevel.checkpoint()
        return JSONResponse({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        """Whether the daemon accepts tasks, which includes writing to its disk, and at least one device is connected."""
        devices = self._directory.statistics()
        connected = sum(device.status in CONNECTED for device in devices)
        problem = None if connected else "no device is connected"
        if not self._task_queue.resumed:
            problem = "the daemon is starting"
        if self._task_queue.closed:
            problem = "the daemon is stopping"
        try:
            await self._store.check_writable()
        except StoreError as error:
            problem = str(error)
        body = {"ready": problem is None, "problem": problem, "devices": len(devices), "connected": connected}
        return JSONResponse(body, 200 if problem is None else 503)

    async def summary(self, _request: Request) -> Response:
        """The number of tasks by state, and of devices by status."""
        await self._directory.loaded.wait()
        tasks = {state.value: count for state, count in (await self._store.counts()).items()}
        devices = Counter(device.status.value for device in self._directory.statistics())
        return JSONResponse(
            {"tasks": tasks, "devices": {status.value: devices[status.value] for status in DeviceStatus}}
        )

    async def metrics(self, _request: Request) -> Response:
        """The metrics for Prometheus."""
        await trio.lowlevel.checkpoint()
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _request: Request) -> Response:
        """The OpenAPI document."""
        await trio.lowlevel.checkpoint()
        return JSONResponse(self._document)


async def _opened(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The events after a comment: some proxies pass the beginning of a response on only with its first bytes."""
    async with aclosing(events):
        yield b": connected\n\n"
        async for event in events:
            yield event


@asynccontextmanager
async def _until_left(request: Request) -> AsyncGenerator[None]:
    """End the block when the client closes its connection, which would keep its place among the connections until then."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with open_background() as nursery:
        nursery.start_soon(watch)
        yield


async def _page(records: list[TaskRecord], following: str | None) -> AsyncGenerator[bytes]:
    """A page of tasks as JSON, in pieces. As one text, a large page would hold the event loop, and take several megabytes."""
    piece = bytearray(b'{"tasks":[')
    for number, record in enumerate(records):
        piece += b"," * (number > 0) + _encoder.encode(short_task(record)).encode()
        if len(piece) > _IN_ONE_PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + b'],"before":' + _encoder.encode(following).encode() + b"}"


class _Stream(StreamingResponse):
    """Streams an async generator, and closes it when the response ends for any reason.

    If the task is deleted or the database fails in between, the connection is closed before the response is complete.
    """

    def __init__(
        self, content: AsyncGenerator[bytes], media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._content = content

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._content):
            try:
                await super().stream_response(send)
            except (NoSuchTask, StoreError) as error:
                logger.warning("a response is incomplete: %s", error)


def _seconds_to_wait(request: Request) -> float:
    try:
        seconds = float(query_of(request, "wait").get("wait", "0"))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_WAIT:
        raise BadRequest(f"wait: expected a number from 0 to {MAX_WAIT}")
    return seconds
