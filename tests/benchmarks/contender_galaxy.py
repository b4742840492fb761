"""This package under measurement: as many tasks as requests in flight, on one connection."""

from __future__ import annotations

import time

import trio

from galaxy_trio import Connection, DeviceConfig, open_connection, open_constellation

from .meter import WARM_UP_TASKS, Meter, Plan, Rate, TaskPlan, rate_between
from .wire import DEVICE_ID, Task


async def measure_rate_of(plan: Plan) -> Rate:
    meter = Meter(plan.peer_pid)

    async def ask(connection: Connection) -> None:
        while meter.running:
            await connection.device_info()
            meter.done += 1

    async with open_connection(plan.url, DEVICE_ID) as connection, trio.open_nursery() as nursery:
        for _ in range(plan.in_flight):
            nursery.start_soon(ask, connection)
        await trio.sleep(plan.warm_up)
        start = meter.mark()
        await trio.sleep(plan.seconds)
        end = meter.mark()
        meter.running = False
    return rate_between(start, end)


async def measure_large(url: str) -> list[float]:
    times: list[float] = []
    async with open_connection(url, DEVICE_ID) as connection:
        for _ in range(2):
            start = time.perf_counter()
            await connection.run_task(Task.LARGE_STRING)
            times.append(time.perf_counter() - start)
    return times


async def _tasks(plan: TaskPlan) -> Rate:
    meter = Meter(plan.peer_pid)
    configs = [DeviceConfig(f"device_{number}", plan.url) for number in range(plan.devices)]

    async with open_constellation(configs) as constellation:
        await constellation.wait_connected()
        devices = list(constellation.devices.values())

        async def run_one(number: int) -> None:
            (await devices[number % plan.devices].run_task(Task.SHORT)).unwrap()
            meter.done += 1

        async def run_all(tasks: int) -> None:
            if not plan.together:
                for number in range(tasks):
                    await run_one(number)
                return
            async with trio.open_nursery() as nursery:
                for number in range(tasks):
                    nursery.start_soon(run_one, number)

        await run_all(WARM_UP_TASKS)
        start = meter.mark()
        await run_all(plan.tasks)
        end = meter.mark()
    return rate_between(start, end)


def measure_rate(plan: Plan) -> Rate:
    return trio.run(measure_rate_of, plan)


def measure_large_result(url: str) -> float:
    """Seconds for the second of two."""
    return trio.run(measure_large, url)[1]


def measure_tasks(plan: TaskPlan) -> Rate:
    return trio.run(_tasks, plan)
