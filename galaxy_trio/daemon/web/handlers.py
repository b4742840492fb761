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

from galaxy_trio import DeviceStatus, NoSuchDevice
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._config.reader import MAX_KEY
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.queries import NoSuchTask, WrongState
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.web.bodies import INLINE, BadRequest, parse_task
from galaxy_trio.daemon.web.short_forms import short_device, short_task, whole_device, whole_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import Request
    from starlette.types import Send

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
    from galaxy_trio.daemon.web.metrics import Metrics
    from galaxy_trio.messages import JSON

logger: Final = logging.getLogger(__name__)

MAX_WAIT: Final = 300
"""Maximum seconds to wait for the end of a task."""
MAX_PAGE: Final = 1_000
"""Maximum tasks in a page."""
RECONNECT_TIMEOUT: Final = 30.0
"""Maximum seconds to wait for a device to reconnect."""
MAX_CAPABILITIES_SIZE: Final = 4_000
"""Maximum characters of all capabilities that a task requires together: every queue and every list of tasks holds them."""
_IN_ONE_PIECE: Final = 2**16
"""Bytes that are sent in one piece, of a task's texts or of a list."""
_encoder: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

_UNBUFFERED: Final = {"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"}
"""Headers of a stream of events: nginx passes each event on immediately, and no proxy compresses them together."""


class Handlers:
    """The handlers of all operations."""

    def __init__(
        self,
        store: Store,
        constellation: Constellation,
        task_queue: TaskQueue,
        event_stream: ServerSentEventStream,
        metrics: Metrics,
        document: Mapping[str, JSON],
    ) -> None:
        self._store = store
        self._constellation = constellation
        self._task_queue = task_queue
        self._event_stream = event_stream
        self._metrics = metrics
        self._document = document

    async def submit_task(self, request: Request) -> Response:
        """Accept a task; it is on disk when the response is sent."""
        asked = await parse_task(await request.body())
        if sum(map(len, asked.capabilities)) > MAX_CAPABILITIES_SIZE:
            raise BadRequest(
                f"capabilities: expected at most {MAX_CAPABILITIES_SIZE:,} characters in all of them together"
            )
        record, is_new = await self._task_queue.submit(asked)
        return JSONResponse(short_task(record), 202 if is_new else 200, {"Location": f"/tasks/{record.id}"})

    async def list_tasks(self, request: Request) -> Response:
        """A page of tasks, the newest first."""
        query = _query(request, "state", "device", "limit", "before")
        state = query.get("state")
        if state is not None and state not in list(TaskState):
            raise BadRequest(f"state: expected one of {', '.join(TaskState)}")
        limit = _page_size(query.get("limit", "100"))
        records = await self._store.page(
            state=None if state is None else TaskState(state),
            device=query.get("device"),
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
        return JSONResponse(short_task(await self._task_queue.cancel(request.path_params["id"])))

    async def retry_task(self, request: Request) -> Response:
        """Rerun a finished task, as a new task."""
        record = await self._task_queue.retry(request.path_params["id"])
        return JSONResponse(short_task(record), 202, {"Location": f"/tasks/{record.id}"})

    async def list_devices(self, _request: Request) -> Response:
        """All devices."""
        await trio.lowlevel.checkpoint()
        devices = self._constellation.statistics().devices.values()
        queued_for = self._task_queue.queued_for
        return JSONResponse({"devices": [short_device(device, queued_for(device.device_id)) for device in devices]})

    async def show_device(self, request: Request) -> Response:
        """A device."""
        await trio.lowlevel.checkpoint()
        return JSONResponse(self._device(request.path_params["id"]))

    def _device(self, name: str) -> dict[str, object]:
        devices = self._constellation.statistics().devices
        device = devices.get(name)
        if device is None:
            raise NoSuchDevice(f"there is no device {name!r}{did_you_mean_or_known(name, devices)}")
        return whole_device(device, self._task_queue.queued_for(name))

    async def reconnect_device(self, request: Request) -> Response:
        """Reconnect a device, and wait for it."""
        name = request.path_params["id"]
        self._device(name)
        with trio.move_on_after(RECONNECT_TIMEOUT):
            async with _until_left(request):
                await self._constellation.devices[name].reconnect()
        return JSONResponse(self._device(name))

    async def listen(self, request: Request) -> Response:
        """The events, streamed."""
        await trio.lowlevel.checkpoint()
        if request.method == "HEAD":
            # The response has no body, so it ends here.
            response = Response(headers=_UNBUFFERED, media_type="text/event-stream")
            del response.headers["Content-Length"]
            return response
        events = self._event_stream.listen(request.headers.get("Last-Event-ID"))
        return _Stream(events, media_type="text/event-stream", headers=_UNBUFFERED)

    async def health(self, _request: Request) -> Response:
        """Confirm that the daemon is alive."""
        await trio.lowlevel.checkpoint()
        return JSONResponse({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        """Whether the daemon accepts tasks, which includes writing to its disk, and at least one device is connected."""
        devices = self._constellation.devices.values()
        connected = sum(device.connected for device in devices)
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
        tasks = {state.value: count for state, count in (await self._store.counts()).items()}
        devices = Counter(device.status.value for device in self._constellation.devices.values())
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


def _query(request: Request, *known: str) -> dict[str, str]:
    """The parameters of a request's URL, each of which is known and given once."""
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise BadRequest(f"{name[:MAX_KEY]!r} is no parameter here{did_you_mean_or_known(name, known)}")
        if name in query:
            raise BadRequest(f"{name}: is given twice: leave out one")
        query[name] = value
    return query


def _page_size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PAGE)) and 0 < int(text) <= MAX_PAGE):
        raise BadRequest(f"limit: expected a whole number from 1 to {MAX_PAGE}")
    return int(text)


def _seconds_to_wait(request: Request) -> float:
    try:
        seconds = float(_query(request, "wait").get("wait", "0"))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_WAIT:
        raise BadRequest(f"wait: expected a number from 0 to {MAX_WAIT}")
    return seconds
