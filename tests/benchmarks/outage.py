"""A server that is killed, and listens again 2 s later: how soon its devices are connected again in a constellation.

The server, all agents, and the constellation are a process each, over loopback: ``python -m tests.benchmarks.outage``. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import AsyncExitStack, ExitStack, contextmanager
from statistics import median
from typing import IO, TYPE_CHECKING, Final, NamedTuple, cast
from urllib.parse import urlsplit

import psutil
import trio

from galaxy_trio import Device, DeviceConfig, DeviceInfo, DeviceStatus, open_constellation
from galaxy_trio.agent import open_agent
from galaxy_trio.messages import Platform
from galaxy_trio.server import ServerLimits, open_server

from .machine import load
from .report import at_most

if TYPE_CHECKING:
    from collections.abc import Generator

    from .effort import Effort
    from .report import Target

DEVICES: Final = 300
RUNS: Final = 20
WANTED: Final = 10.0
"""Seconds after which all devices are to be connected again."""
_AWAY: Final = 2.0
"""Seconds for which no server listens."""


class Return(NamedTuple):
    """Seconds from the moment at which the server listens again until devices are connected again in the constellation."""

    half: float
    """Half of them."""
    all: float
    """All of them."""
    cpu: float
    """Seconds of CPU time of the three processes until then."""
    load: str
    """How busy the machine was."""


async def _serve(port: int) -> None:
    async with open_server(port=port, limits=ServerLimits(max_connections=10_000)) as server:
        print(server.url, flush=True)
        await trio.sleep_forever()


async def _be_devices(url: str, devices: int) -> None:
    async with AsyncExitStack() as stack:
        for number in range(devices):
            info = DeviceInfo(f"device_{number}", Platform.LINUX)
            await stack.enter_async_context(open_agent(url, info.device_id, system_info=info))
        print("registered", flush=True)
        await trio.sleep_forever()


async def _be_constellation(url: str, devices: int) -> None:
    back: list[float] = []

    async def watch(device: Device, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await device.wait_status(DeviceStatus.DISCONNECTED, DeviceStatus.CONNECTING)
        await device.wait_connected()
        back.append(time.monotonic())

    async with open_constellation(
        [DeviceConfig(f"device_{number}", url) for number in range(devices)]
    ) as constellation:
        await constellation.wait_connected()
        async with trio.open_nursery() as nursery:
            for device in constellation.devices.values():
                await nursery.start(watch, device)
            print("connected", flush=True)
        print(json.dumps(back), flush=True)
        await trio.sleep_forever()


class _Process:
    """A process of the measurement, which prints lines."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str]) -> None:
        self._process = process
        self._output = output

    def read_line(self) -> str:
        """Wait for its next line."""
        line = self._output.readline().strip()
        if not line:
            raise RuntimeError("a process of the measurement ended early")
        return line

    def cpu(self) -> float:
        """Seconds of CPU time that it has taken."""
        return sum(psutil.Process(self._process.pid).cpu_times()[:2])

    def kill(self) -> None:
        """End it without any good-bye to its peers."""
        self._process.kill()
        self._process.wait()


@contextmanager
def _running(role: str, place: object, devices: int) -> Generator[_Process]:
    command = [sys.executable, "-m", f"{__package__}.outage", role, str(place), str(devices)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the process has no pipe")
            yield _Process(process, process.stdout)
        finally:
            process.kill()


def measure_return(devices: int) -> Return:
    """Kill a server, start it again 2 s later, and wait until all devices are connected again."""
    with ExitStack() as stack:

        def start(role: str, place: object) -> tuple[_Process, str]:
            process = stack.enter_context(_running(role, place, devices))
            return process, process.read_line()

        server, url = start("serve", 0)
        agents, _ = start("agents", url)
        constellation, _ = start("constellation", url)
        server.kill()
        time.sleep(_AWAY)
        server, _ = start("serve", urlsplit(url).port)
        listening = time.monotonic()
        processes = (server, agents, constellation)
        cpu = sum(process.cpu() for process in processes)
        back = cast("list[float]", json.loads(constellation.read_line()))
        cpu = sum(process.cpu() for process in processes) - cpu
    times = [each - listening for each in back]
    return Return(median(times), max(times), cpu, load())


def main() -> None:
    """Without a role, measure; otherwise be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", default="measure")
    parser.add_argument("place", nargs="?", default="")
    parser.add_argument("devices", nargs="?", type=int, default=DEVICES)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    match arguments.role:
        case "serve":
            trio.run(_serve, int(arguments.place))
        case "agents":
            trio.run(_be_devices, arguments.place, arguments.devices)
        case "constellation":
            trio.run(_be_constellation, arguments.place, arguments.devices)
        case _:
            measure_returns(arguments.devices, arguments.runs)


def bench_outage(effort: Effort) -> list[Target]:
    """Measure, and print a table."""
    slowest = measure_returns(DEVICES, effort.outages)
    return [at_most(f"seconds until {DEVICES} devices are back after an outage, the slowest run", WANTED, slowest)]


def measure_returns(devices: int, runs: int) -> float:
    """Measure so many runs, print a table, and return the seconds of the slowest."""
    print(f"\n## {devices} devices whose server was killed and listens again {_AWAY:g} s later\n")
    print("Seconds from then until they are connected again in a constellation.\n")
    print("| run | half of them | all | CPU time of all three processes | load |\n| ---: | ---: | ---: | ---: | ---: |")
    measured: list[Return] = []
    for run in range(1, runs + 1):
        each = measure_return(devices)
        measured.append(each)
        print(f"| {run} | {each.half:.1f} | {each.all:.1f} | {each.cpu:.1f} | {each.load} |", flush=True)
    slowest = max(each.all for each in measured)
    print(f"\nAll: median {median(each.all for each in measured):.1f} s, slowest {slowest:.1f} s.", end=" ")
    print(f"Within {WANTED:g} s in {sum(each.all <= WANTED for each in measured)} of {runs} runs.\n")
    return slowest


if __name__ == "__main__":
    main()
