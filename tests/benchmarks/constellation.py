"""A constellation of many devices on one machine: connecting, keeping connected, and a server that goes and comes back."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import psutil
import trio

from galaxy_trio import (
    ConnectionLost,
    ConnectionOptions,
    Constellation,
    Device,
    DeviceConfig,
    DeviceStatus,
    open_constellation,
)

from .processes import running_server
from .report import print_table

if TYPE_CHECKING:
    from .effort import Effort
    from .processes import ServerProcess
    from .report import Target

_DEVICES: Final = 300
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


async def _measure(server: ServerProcess, devices: int, idle_seconds: float) -> Kept:
    process = psutil.Process()
    gc.collect()
    memory = process.memory_info().rss
    began = time.perf_counter()
    configs = [DeviceConfig(f"device_{number}", server.url) for number in range(devices)]
    async with open_constellation(configs, options=ConnectionOptions(heartbeat_interval=30)) as constellation:
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
            server.write_line(f"{_RESTART}")
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


def _measure_apart(idle_seconds: float) -> Kept:
    """In a process of its own."""
    command = [sys.executable, "-m", __name__, json.dumps([_DEVICES, idle_seconds])]
    completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    return Kept(
        *cast("tuple[int, float, float, float, float, float, float, int, int, int]", json.loads(completed.stdout))
    )


def bench_constellation(effort: Effort) -> list[Target]:
    """Many devices kept connected, and a server that goes and comes back; no target is set for it."""
    print("\n## A constellation: devices that are kept connected, with a heartbeat every 30 s each")
    kept = _measure_apart(effort.idle)
    print_table(
        ("devices", "what", "measured"),
        (
            (f"{kept.devices}", "time to connect all", f"{kept.connect:.2f} s"),
            ("", "memory for each", f"{kept.memory / 1024:.0f} KiB"),
            ("", f"CPU while idle, over {effort.idle:g} s", f"{kept.idle_cpu * 100:.2f} % of a core"),
            ("", "server away for 2 s: half of them connected again after", f"{kept.half:.1f} s"),
            ("", "all connected again after", f"{kept.storm:.1f} s"),
            ("", "CPU time for that, and for 600 tasks that had waited", f"{kept.storm_cpu:.2f} s"),
            ("", "running tasks that were notified of the loss", f"{kept.lost}"),
            ("", "queued tasks that ran afterwards", f"{kept.run_after}"),
            ("", "queued tasks that were lost", f"{kept.missing}"),
        ),
    )
    return []


def main() -> None:
    """What to do comes as JSON in the argument, what came of it goes out as JSON."""
    devices, idle_seconds = cast("tuple[int, float]", json.loads(sys.argv[1]))
    with running_server("constellation_server", devices) as server:
        print(json.dumps(trio.run(_measure, server, devices, idle_seconds)))


if __name__ == "__main__":
    main()
