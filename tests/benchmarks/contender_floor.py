"""The floor: trio-websocket alone, one task that keeps a window of requests ahead, and looks into no reply."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
import trio_websocket

from .meter import Meter, Plan, Rate, rate_between
from .wire import LIMIT, Task, recorded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_RECEIVE_BYTES: Final = 256 * 1024


def _compact(text: str, **changes: str) -> str:
    """Without what is null and without spaces: as long as the texts of this package's client."""
    members = {**json.loads(text), **changes}
    return json.dumps({name: value for name, value in members.items() if value is not None}, separators=(",", ":"))


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[trio_websocket.WebSocketConnection]:
    async with trio_websocket.open_websocket_url(
        url, max_message_size=LIMIT, receive_buffer_size=_RECEIVE_BYTES
    ) as websocket:
        await websocket.send_message(_compact(recorded("registration_ok", "constellation", "register")))
        await websocket.get_message()
        yield websocket


async def _rate(plan: Plan) -> Rate:
    meter = Meter(plan.peer_pid)
    text = _compact(recorded("device_info_ok", "constellation", "device_info_request"))

    async def keep_a_window(websocket: trio_websocket.WebSocketConnection) -> None:
        ahead = 0
        while meter.running:
            # The window opens by one request per reply: all together, they would fill every buffer on the way.
            for _ in range(min(2, plan.in_flight - ahead)):
                await websocket.send_message(text)
                ahead += 1
            await websocket.get_message()
            ahead -= 1
            meter.done += 1

    async with _open(plan.url) as websocket, trio.open_nursery() as nursery:
        nursery.start_soon(keep_a_window, websocket)
        await trio.sleep(plan.warm_up)
        start = meter.mark()
        await trio.sleep(plan.seconds)
        end = meter.mark()
        meter.running = False
    return rate_between(start, end)


async def _large_result(url: str) -> list[float]:
    text = _compact(recorded("task_completed", "constellation", "task"), request=Task.LARGE_STRING)
    times: list[float] = []
    async with _open(url) as websocket:
        for _ in range(2):
            start = time.perf_counter()
            await websocket.send_message(text)
            for _ in range(2):
                await websocket.get_message()
            times.append(time.perf_counter() - start)
    return times


def measure_rate(plan: Plan) -> Rate:
    return trio.run(_rate, plan)


def measure_large_result(url: str) -> float:
    """Seconds for the second of two."""
    return trio.run(_large_result, url)[1]
