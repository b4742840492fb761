"""What the asyncio contenders have in common: requests and tasks under measurement, however they are made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .asyncio_messages import TaskStatus
from .meter import WARM_UP_TASKS, Meter, Plan, Rate, TaskPlan, rate_between

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Protocol

    class Ended(Protocol):
        """How a task has ended."""

        @property
        def status(self) -> TaskStatus: ...
        @property
        def error(self) -> str | None: ...


async def measure_requests(plan: Plan, ask_once: Callable[[], Awaitable[object]]) -> Rate:
    """Keep as many requests in flight as the plan says."""
    meter = Meter(plan.peer_pid)

    async def ask() -> None:
        while meter.running:
            await ask_once()
            meter.done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.in_flight):
            group.create_task(ask())
        await asyncio.sleep(plan.warm_up)
        start = meter.mark()
        await asyncio.sleep(plan.seconds)
        end = meter.mark()
        meter.running = False
    return rate_between(start, end)


async def measure_tasks_on(
    plan: TaskPlan, device_ids: Sequence[str], run_task: Callable[[str], Awaitable[Ended]]
) -> Rate:
    """Run the plan's tasks on the devices in turn, together or one after the other."""
    meter = Meter(plan.peer_pid)

    async def run_one(number: int) -> None:
        ended = await run_task(device_ids[number % plan.devices])
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
