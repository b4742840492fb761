"""A constellation of many devices on one machine: connecting, keeping connected, and a server that goes and comes back."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from statistics import median
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import psutil
import trio

from galaxy_trio import ConnectionLost, Constellation, Device, DeviceConfig, DeviceStatus, open_constellation

if TYPE_CHECKING:
    from collections.abc import Generator

_RESTART = 2.0
"""Seconds for which the server is away."""
_AWAY = (DeviceStatus.DISCONNECTED, DeviceStatus.CONNECTING, DeviceStatus.REGISTERING)


class Kept(NamedTuple):
    """What was measured with so many devices. Seconds, bytes, shares of a core."""

    devices: int
    connect: float
    memory: float
    """Bytes of this process for one device."""
    idle_cpu: float
    """Share of a core, while nothing happens but heartbeats."""
    half: float
    """From the server's end, which is away for 2 s, until half of them are connected again."""
    storm: float
    """Until all are."""
    storm_cpu: float
    """Seconds of CPU time for that and for the tasks that had waited."""
    lost: int
    """Running tasks that raised `ConnectionLost`."""
    run_after: int
    """Queued tasks that ran after the reconnect."""
    missing: int
    """Queued tasks that did not."""


@contextmanager
def running_server(devices: int) -> Generator[tuple[str, IO[str], IO[str]]]:
    command = [sys.executable, "-m", f"{__package__}.constellation_server", json.dumps(devices)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdin is None:
                raise RuntimeError("the server has no pipes")
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the server did not start")
            yield url, process.stdin, process.stdout
        finally:
            process.kill()


class _Tasks:
    """Three tasks for each device: one that runs, two that wait."""

    def __init__(self) -> None:
        self.lost = 0
        self.run_after = 0

    async def first(self, constellation: Constellation, device_id: str, *, task_status: trio.TaskStatus[str]) -> None:
        try:
            await constellation.devices[device_id].run_task("1000 0", task_status=task_status)
        except ConnectionLost:
            self.lost += 1

    async def queued(self, constellation: Constellation, device_id: str, number: int) -> None:
        (await constellation.devices[device_id].run_task(f"0 {number}")).unwrap()
        self.run_after += 1


async def _measure(url: str, restart: IO[str], devices: int, idle_seconds: float) -> Kept:
    process = psutil.Process()
    gc.collect()
    memory = process.memory_info().rss
    began = time.perf_counter()
    configs = [DeviceConfig(f"device_{number}", url) for number in range(devices)]
    async with open_constellation(configs, heartbeat_interval=30) as constellation:
        await constellation.wait_connected()
        connect = time.perf_counter() - began
        gc.collect()
        memory = process.memory_info().rss - memory
        idle_from, began = sum(process.cpu_times()[:2]), time.perf_counter()
        await trio.sleep(idle_seconds)
        idle = (sum(process.cpu_times()[:2]) - idle_from) / (time.perf_counter() - began)
        tasks = _Tasks()
        async with trio.open_nursery() as nursery:
            for device_id in constellation.devices:
                await nursery.start(tasks.first, constellation, device_id)
            for device_id in constellation.devices:
                nursery.start_soon(tasks.queued, constellation, device_id, 1)
                nursery.start_soon(tasks.queued, constellation, device_id, 2)
            await trio.sleep(0.5)
            cpu = sum(process.cpu_times()[:2])
            restart.write(f"{_RESTART}\n")
            restart.flush()
            began = time.perf_counter()
            for device in constellation.devices.values():
                await device.wait_status(*_AWAY)
            back: list[float] = []

            async def watch(device: Device) -> None:
                await device.wait_connected()
                back.append(time.perf_counter() - began)

            async with trio.open_nursery() as watching:
                for device in constellation.devices.values():
                    watching.start_soon(watch, device)
        cpu = sum(process.cpu_times()[:2]) - cpu
    return Kept(
        devices,
        connect,
        memory / devices,
        idle,
        median(back),
        max(back),
        cpu,
        tasks.lost,
        tasks.run_after,
        2 * devices - tasks.run_after,
    )


def measure_constellation(devices: int, idle_seconds: float) -> Kept:
    """In a process of its own."""
    command = [sys.executable, "-m", __name__, json.dumps([devices, idle_seconds])]
    completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    return Kept(
        *cast("tuple[int, float, float, float, float, float, float, int, int, int]", json.loads(completed.stdout))
    )


def main() -> None:
    """What to do comes as JSON in the argument, what came of it goes out as JSON."""
    devices, idle_seconds = cast("tuple[int, float]", json.loads(sys.argv[1]))
    with running_server(devices) as (url, restart, _):
        print(json.dumps(trio.run(_measure, url, restart, devices, idle_seconds)))


if __name__ == "__main__":
    main()
