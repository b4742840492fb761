"""The daemon's HTTP interface: who wants what of the tasks, the devices and the events. See openapi.py for all of it in one place."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, cast

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from galaxy_trio import DeviceStatus, NoSuchDevice
from galaxy_trio.daemon.store.queries import IdempotencyConflict, NoSuchTask, WrongState
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.task_queue import DaemonBusy
from galaxy_trio.daemon.web.bodies import INLINE, BadRequest, device_as_json, parse_task, task_as_json
from galaxy_trio.daemon.web.openapi import DOCUMENT
from galaxy_trio.daemon.web.page import page_routes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import Send

    from galaxy_trio import Constellation, DeviceStatistics
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import Dispatcher
    from galaxy_trio.daemon.web.event_stream import Feed
    from galaxy_trio.daemon.web.metrics import Metrics

_LONGEST_WAIT: Final = 300.0
_LARGEST_PAGE: Final = 1_000
_RECONNECT_TIMEOUT: Final = 30.0


class Api:
    """The routes, over what they are about."""

    def __init__(
        self, store: Store, constellation: Constellation, dispatcher: Dispatcher, feed: Feed, metrics: Metrics
    ) -> None:
        self._store = store
        self._constellation = constellation
        self._dispatcher = dispatcher
        self._feed = feed
        self._metrics = metrics

    def make_app(self) -> Starlette:
        """The application, for any ASGI server."""
        return Starlette(
            routes=[
                Route("/tasks", _by_method(GET=self.list_tasks, POST=self.submit), methods=["GET", "POST"]),
                Route(
                    "/tasks/{id}", _by_method(GET=self.show_task, DELETE=self.cancel_task), methods=["GET", "DELETE"]
                ),
                Route("/tasks/{id}/result", self.show_result),
                Route("/tasks/{id}/retry", self.retry_task, methods=["POST"]),
                Route("/devices", self.list_devices),
                Route("/devices/{id}", self.show_device),
                Route("/devices/{id}/reconnect", self.reconnect_device, methods=["POST"]),
                Route("/events", self.events),
                Route("/health", self.health),
                Route("/ready", self.ready),
                Route("/metrics", self.metrics),
                Route("/openapi.json", self.openapi),
                Route("/summary", self.summary),
                *page_routes(),
            ],
            exception_handlers={
                BadRequest: _answer(400),
                NoSuchTask: _answer(404),
                NoSuchDevice: _answer(404),
                IdempotencyConflict: _answer(409),
                WrongState: _answer(409),
                DaemonBusy: _answer(503),
                StoreError: _answer(507),
                HTTPException: _answer_as_http_does,
            },
        )

    # ---- tasks

    async def submit(self, request: Request) -> Response:
        """Keep a task; only then say so."""
        record, is_new = await self._dispatcher.submit(parse_task(await request.body()))
        return JSONResponse(task_as_json(record), 202 if is_new else 200, {"Location": f"/tasks/{record.id}"})

    async def list_tasks(self, request: Request) -> Response:
        """A page of them, the newest first."""
        state = request.query_params.get("state")
        if state is not None and state not in list(TaskState):
            raise BadRequest(f"state: expected one of {', '.join(TaskState)}")
        limit = _page_size(request)
        records = await self._store.page(
            state=None if state is None else TaskState(state),
            device=request.query_params.get("device"),
            limit=limit,
            before=request.query_params.get("before"),
        )
        following = records[-1].id if len(records) == limit else None
        return JSONResponse({"tasks": [task_as_json(record) for record in records], "before": following})

    async def show_task(self, request: Request) -> Response:
        """One, with its result if that is small; with ``wait``, as soon as it has ended."""
        seconds = _number(request, "wait", 0, _LONGEST_WAIT)
        return JSONResponse(
            await self._task_with_result(await self._dispatcher.wait(request.path_params["id"], seconds))
        )

    async def _task_with_result(self, record: TaskRecord) -> dict[str, object]:
        shown = task_as_json(record)
        if record.result_size is not None and record.result_size <= INLINE:
            text = b"".join([piece async for piece in self._store.read_result(record.id)])
            shown["result"] = json.loads(text)
        return shown

    async def show_result(self, request: Request) -> Response:
        """A result of any size."""
        record = await self._dispatcher.wait(request.path_params["id"], 0)
        if record.result_size is None:
            if record.state.ended:
                raise NoSuchTask(f"task {record.id} has no result: it was {record.state.value}")
            raise WrongState(f"task {record.id} has no result yet: it is {record.state.value}")
        return _Stream(
            self._store.read_result(record.id),
            media_type="application/json",
            headers={"Content-Length": str(record.result_size)},
        )

    async def cancel_task(self, request: Request) -> Response:
        """Stop it, wherever it is."""
        return JSONResponse(task_as_json(await self._dispatcher.cancel(request.path_params["id"])))

    async def retry_task(self, request: Request) -> Response:
        """Once more, as a new one."""
        record = await self._dispatcher.retry(request.path_params["id"])
        return JSONResponse(task_as_json(record), 202, {"Location": f"/tasks/{record.id}"})

    # ---- devices

    async def list_devices(self, _request: Request) -> Response:
        """All of them."""
        await trio.lowlevel.checkpoint()
        devices = self._constellation.statistics().devices.values()
        return JSONResponse({"devices": [self._as_json(device) for device in devices]})

    async def show_device(self, request: Request) -> Response:
        """One."""
        await trio.lowlevel.checkpoint()
        return JSONResponse(self._device(request.path_params["id"]))

    def _device(self, name: str) -> dict[str, object]:
        device = self._constellation.statistics().devices.get(name)
        if device is None:
            raise NoSuchDevice(f"there is no device {name!r}")
        return self._as_json(device)

    def _as_json(self, device: DeviceStatistics) -> dict[str, object]:
        return device_as_json(device, self._dispatcher.queued_for(device.device_id))

    async def reconnect_device(self, request: Request) -> Response:
        """Connect it anew, and wait a while for that."""
        name = request.path_params["id"]
        device = self._constellation.devices.get(name)
        if device is None:
            raise NoSuchDevice(f"there is no device {name!r}")
        with trio.move_on_after(_RECONNECT_TIMEOUT):
            await device.reconnect()
        return JSONResponse(self._device(name))

    # ---- all else

    async def events(self, request: Request) -> Response:
        """What happens, as it happens."""
        await trio.lowlevel.checkpoint()
        return _Stream(self._feed.listen(request.headers.get("Last-Event-ID")), media_type="text/event-stream")

    async def health(self, _request: Request) -> Response:
        """It lives."""
        await trio.lowlevel.checkpoint()
        return JSONResponse({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        """Whether a task would be taken, and there is a device to run one."""
        devices = self._constellation.devices.values()
        connected = sum(device.connected for device in devices)
        problem = None if connected else "no device is connected"
        if not self._dispatcher.resumed:
            problem = "the daemon is starting"
        if self._dispatcher.closed:
            problem = "the daemon is being stopped"
        try:
            await self._store.counts()
        except StoreError as error:
            problem = str(error)
        body = {"ready": problem is None, "problem": problem, "devices": len(devices), "connected": connected}
        return JSONResponse(body, 200 if problem is None else 503)

    async def summary(self, _request: Request) -> Response:
        """How many there are of what."""
        tasks = {state.value: count for state, count in (await self._store.counts()).items()}
        devices = Counter(device.status.value for device in self._constellation.devices.values())
        return JSONResponse(
            {"tasks": tasks, "devices": {status.value: devices[status.value] for status in DeviceStatus}}
        )

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        await trio.lowlevel.checkpoint()
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _request: Request) -> Response:
        """All of this, for programs."""
        await trio.lowlevel.checkpoint()
        return JSONResponse(DOCUMENT)


def _by_method(**endpoints: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """One route for all that can be done at an address: what cannot is answered with what can."""

    async def endpoint(request: Request) -> Response:
        return await endpoints[request.method if request.method != "HEAD" else "GET"](request)

    endpoint.__name__ = next(iter(endpoints.values())).__name__
    return endpoint


class _Stream(StreamingResponse):
    """Closes what it streams, however it ends."""

    def __init__(
        self, content: AsyncGenerator[bytes], media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._content = content

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._content):
            await super().stream_response(send)


def _answer(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        await trio.lowlevel.checkpoint()
        return JSONResponse({"error": str(error)}, status)

    return answer


async def _answer_as_http_does(request: Request, error: Exception) -> Response:
    refusal = cast("HTTPException", error)
    await trio.lowlevel.checkpoint()
    sentences = {
        404: f"there is nothing at {request.url.path[:200]!r}: see /openapi.json",
        405: f"{request.method[:20]} is not what can be done with {request.url.path[:200]!r}: see /openapi.json",
    }
    return JSONResponse(
        {"error": sentences.get(refusal.status_code, refusal.detail)}, refusal.status_code, refusal.headers
    )


def _page_size(request: Request) -> int:
    text = request.query_params.get("limit", "100")
    if not (
        text.isascii() and text.isdecimal() and len(text) <= len(str(_LARGEST_PAGE)) and 0 < int(text) <= _LARGEST_PAGE
    ):
        raise BadRequest(f"limit: expected a whole number from 1 to {_LARGEST_PAGE}")
    return int(text)


def _number(request: Request, name: str, default: float, most: float) -> float:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise BadRequest(f"{name}: expected a number from 0 to {most:g}")
    return number
