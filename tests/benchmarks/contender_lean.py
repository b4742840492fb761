"""Requests and tasks as cheaply as asyncio can, under measurement: see asyncio_lean_client.py and asyncio_lean_manager.py."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from .asyncio_contender import measure_requests, measure_tasks_on
from .asyncio_lean_client import open_lean_client
from .asyncio_lean_manager import open_lean_manager
from .wire import DEVICE_ID, Task

if TYPE_CHECKING:
    from .meter import Plan, Rate, TaskPlan


async def _rate(plan: Plan) -> Rate:
    async with open_lean_client(plan.url, DEVICE_ID) as client:
        return await measure_requests(plan, client.device_info)


async def _large_result(url: str) -> list[float]:
    times: list[float] = []
    async with open_lean_client(url, DEVICE_ID) as client:
        for _ in range(2):
            start = time.perf_counter()
            await client.run_task(Task.LARGE_STRING)
            times.append(time.perf_counter() - start)
    return times


async def _tasks(plan: TaskPlan) -> Rate:
    device_ids = [f"device_{number}" for number in range(plan.devices)]
    async with open_lean_manager(plan.url, device_ids) as manager:
        return await measure_tasks_on(plan, device_ids, lambda device_id: manager.run_task(device_id, Task.SHORT))


def measure_rate(plan: Plan) -> Rate:
    return asyncio.run(_rate(plan))


def measure_large_result(url: str) -> float:
    """Seconds for the second of two."""
    return asyncio.run(_large_result(url))[1]


def measure_tasks(plan: TaskPlan) -> Rate:
    return asyncio.run(_tasks(plan))
