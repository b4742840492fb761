"""The client that this package replaces, under measurement: see asyncio_device_manager.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .asyncio_contender import measure_requests, measure_tasks_on
from .asyncio_device_manager import open_device_manager
from .wire import DEVICE_ID, Task

if TYPE_CHECKING:
    from .meter import Plan, Rate, TaskPlan


async def _rate(plan: Plan) -> Rate:
    async with open_device_manager(plan.url, [DEVICE_ID]) as manager:
        return await measure_requests(plan, manager.devices[DEVICE_ID].device_info)


async def _tasks(plan: TaskPlan) -> Rate:
    device_ids = [f"device_{number}" for number in range(plan.devices)]
    async with open_device_manager(plan.url, device_ids) as manager:
        return await measure_tasks_on(plan, device_ids, lambda device_id: manager.run_task(device_id, Task.SHORT))


def measure_rate(plan: Plan) -> Rate:
    return asyncio.run(_rate(plan))


def measure_tasks(plan: TaskPlan) -> Rate:
    return asyncio.run(_tasks(plan))
