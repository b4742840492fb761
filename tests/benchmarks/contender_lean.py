"""Tasks as cheaply as asyncio can, under measurement: see asyncio_lean_manager.py."""

from __future__ import annotations

import asyncio

from .asyncio_lean_manager import open_lean_manager
from .asyncio_reference import TaskStatus
from .meter import WARM_UP_TASKS, Meter, Rate, TaskPlan, rate_between
from .wire import Task


async def _tasks(plan: TaskPlan) -> Rate:
    meter = Meter(plan.peer_pid)
    device_ids = [f"device_{number}" for number in range(plan.devices)]

    async with open_lean_manager(plan.url, device_ids) as manager:

        async def run_one(number: int) -> None:
            ended = await manager.run_task(device_ids[number % plan.devices], Task.SHORT)
            if ended.status is not TaskStatus.COMPLETED:
                raise RuntimeError(ended.error)
            meter.done += 1

        async def run_all(tasks: int) -> None:
            if not plan.together:
                for number in range(tasks):
                    await run_one(number)
                return
            async with asyncio.TaskGroup() as group:
                for number in range(tasks):
                    group.create_task(run_one(number))

        await run_all(WARM_UP_TASKS)
        start = meter.mark()
        await run_all(plan.tasks)
        end = meter.mark()
    return rate_between(start, end)


def measure_tasks(plan: TaskPlan) -> Rate:
    return asyncio.run(_tasks(plan))
