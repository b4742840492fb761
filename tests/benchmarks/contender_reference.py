"""The reference under measurement: see asyncio_reference.py."""

from __future__ import annotations

import asyncio
import time

from .asyncio_reference import ReferenceClient, open_client
from .meter import Meter, Plan, Rate, rate_between
from .wire import DEVICE_ID, Task


async def _rate(plan: Plan) -> Rate:
    meter = Meter(plan.peer_pid)

    async def ask(client: ReferenceClient) -> None:
        while meter.running:
            await client.device_info()
            meter.done += 1

    async with open_client(plan.url, DEVICE_ID) as client, asyncio.TaskGroup() as group:
        for _ in range(plan.in_flight):
            group.create_task(ask(client))
        await asyncio.sleep(plan.warm_up)
        start = meter.mark()
        await asyncio.sleep(plan.seconds)
        end = meter.mark()
        meter.running = False
    return rate_between(start, end)


async def _large_result(url: str) -> list[float]:
    times: list[float] = []
    async with open_client(url, DEVICE_ID) as client:
        for _ in range(2):
            start = time.perf_counter()
            await client.run_task(Task.LARGE_STRING)
            times.append(time.perf_counter() - start)
    return times


def measure_rate(plan: Plan) -> Rate:
    return asyncio.run(_rate(plan))


def measure_large_result(url: str) -> float:
    """Seconds for the second of two."""
    return asyncio.run(_large_result(url))[1]
