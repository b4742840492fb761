"""The reference under measurement: see asyncio_reference.py."""

from __future__ import annotations

import asyncio
import time

from .asyncio_device_manager import open_device_manager
from .asyncio_reference import ReferenceClient, TaskStatus, open_client
from .meter import WARM_UP_TASKS, Meter, Plan, Rate, TaskPlan, rate_between
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


async def _tasks(plan: TaskPlan) -> Rate:
    meter = Meter(plan.peer_pid)
    device_ids = [f"device_{number}" for number in range(plan.devices)]

    async with open_device_manager(plan.url, device_ids) as manager:

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


def measure_rate(plan: Plan) -> Rate:
    return asyncio.run(_rate(plan))


def measure_large_result(url: str) -> float:
    """Seconds for the second of two."""
    return asyncio.run(_large_result(url))[1]


def measure_tasks(plan: TaskPlan) -> Rate:
    return asyncio.run(_tasks(plan))
