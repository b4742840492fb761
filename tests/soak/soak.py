"""Run tasks under faults for a long time: ``nox -s soak``, for 20 minutes, or ``-- --minutes N``. Status 1 for a broken promise or a leak.

Devices, their server and their constellations run over TCP, in processes of their own, and all connections pass a proxy that cuts, resets,
stalls and slows them down. At the end the journals of all ends are compared, and so is what each process used over time.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from galaxy_trio import ConnectionLost, RequestRejected, RequestTimeout
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import CONNECTED
from galaxy_trio.messages import TaskStatus
from tests.connection.support.faults import Fault, break_connection
from tests.connection.support.proxy import ProxiedConnection, Proxy, open_proxy
from tests.soak.journals import Counts, Ending, Journals, broken_promises
from tests.soak.processes import OPTIONS, Process, open_process
from tests.soak.samples import Sample, growth_of, leaks_of, table_of, take_sample
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from galaxy_trio.messages import TaskResult


class RunTask(Protocol):
    """`Constellation.run_task` or `Device.run_task`."""

    async def __call__(self, request: str, *, timeout: float) -> TaskResult:
        """Run a task."""
        ...


_CONSTELLATIONS: Final = 5
_SAMPLES: Final = 100
_PROGRESS: Final = 60.0
"""Seconds between two progress lines."""
_STALLS: Final = {Fault.STALL: 4.0, Fault.HALF_OPEN: 15.0}
"""Seconds until a stalled connection is resumed, at most: both ends of a half-open one have given it up by then."""
_CANCELLED: Final = 0.05
"""The share of tasks that are cancelled by their callers."""
_TIMEOUT: Final = 20.0


@attrs.define
class Result:
    """What a soak has shown.

    Attributes:
        journals: What each end knows about the tasks.
        faults: The number of faults of each kind.
        samples: What each process used, over time.
        problems: The broken promises and the leaks, in words. None if the soak is passed.
    """

    journals: Journals = attrs.field(factory=Journals)
    faults: Counter[Fault] = attrs.field(factory=Counter[Fault])
    samples: dict[str, list[Sample]] = attrs.field(factory=dict[str, list[Sample]])
    problems: list[str] = attrs.field(factory=list[str])

    def __str__(self) -> str:
        counted = ", ".join(
            f"{count:,} {name.replace('_', ' ')}" for name, count in self.journals.totals().items() if count
        )
        faults = ", ".join(f"{count:,} {fault}" for fault, count in sorted(self.faults.items()))
        ends = f"{self.journals.sessions.total():,} began on the server, {self.journals.done.total():,} were done by devices"
        return "\n".join(
            [
                f"{self.journals.submitted:,} tasks: {counted}; {ends}.",
                f"{self.faults.total():,} faults: {faults}.",
                "",
                table_of(self.samples),
                "",
                *(self.problems or ["All checks passed."]),
            ]
        )


class _Soak:
    """The main process: the proxy and the constellations, whose tasks it submits and whose connections it breaks."""

    def __init__(self, seconds: float, devices: int, faults_per_second: float, seed: int) -> None:
        self.result = Result()
        self._seconds = seconds
        self._devices = devices
        self._faults_per_second = faults_per_second
        self._random = Random(seed)
        self._processes: dict[str, Process] = {}
        self._constellations: list[Constellation] = []

    async def run(self) -> Result:
        """Run the soak."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = self._processes["server"] = await stack.enter_async_context(open_process("server", folder))
            with trio.fail_after(SECONDS):
                url = (await server.read_line()).strip('"')
            proxy = await stack.enter_async_context(open_proxy(url))
            self._processes["devices"] = await stack.enter_async_context(
                open_process("devices", folder, proxy.url, self._devices)
            )
            for number in range(_CONSTELLATIONS):
                configs = [DeviceConfig(f"d{n}", proxy.url) for n in range(number, self._devices, _CONSTELLATIONS)]
                opened = open_constellation(
                    configs, reconnect_delay=0.2, keepalive_expiry=1, options=OPTIONS, random=self._random
                )
                self._constellations.append(await stack.enter_async_context(opened))
            with trio.fail_after(SECONDS):
                idle_before = await self._idle()
            await self._work_under_faults(proxy)
            with trio.fail_after(2 * SECONDS):
                await self._check_idle(idle_before)
            for process in self._processes.values():
                await process.write()
            self.result.journals.sessions = Counts.read(folder / "sessions")
            self.result.journals.begun = Counts.read(folder / "begun")
            self.result.journals.done = Counts.read(folder / "done")
        self.result.problems += broken_promises(self.result.journals)
        for name, samples in self.result.samples.items():
            self.result.problems += growth_of(name, samples)
        return self.result

    async def _sample(self) -> tuple[dict[str, Sample], int]:
        """Measure all processes. Returns what they use, and the sum of what goes on."""
        reports = {name: await process.report() for name, process in self._processes.items()}
        busy = sum(report.busy for report in reports.values())
        for constellation in self._constellations:
            statistics = constellation.statistics()
            busy += statistics.running + statistics.queued
            for device in constellation.devices.values():
                busy += device.statistics().idle_connections + (device.status not in CONNECTED)
        return {"constellations": take_sample(), **{name: report.sample for name, report in reports.items()}}, busy

    async def _idle(self) -> dict[str, Sample]:
        """Wait until everything is connected and nothing runs, and return what the processes use then."""
        while True:
            samples, busy = await self._sample()
            if not busy:
                return samples
            await trio.sleep(0.2)

    async def _check_idle(self, before: dict[str, Sample]) -> None:
        """Wait until the processes use no more than before. What half-open connections use is released after their liveness timeout."""
        problems: list[str] = []
        with trio.move_on_after(SECONDS):
            while True:
                after = await self._idle()
                problems = [problem for name in before for problem in leaks_of(name, before[name], after[name])]
                if not problems:
                    return
                await trio.sleep(0.5)
        self.result.problems += problems or ["the processes were not idle within a minute after the load"]

    async def _work_under_faults(self, proxy: Proxy) -> None:
        """Submit tasks until the time is over, and wait for their endings."""
        ends_at = trio.current_time() + self._seconds
        async with trio.open_nursery() as nursery:
            for constellation in self._constellations:
                for device in constellation.devices.values():
                    nursery.start_soon(self._submit, constellation.run_task, ends_at)
                    nursery.start_soon(self._submit, device.run_task, ends_at)
            nursery.start_soon(self._watch, ends_at)
            nursery.start_soon(self._break, proxy, ends_at)
            nursery.start_soon(self._report_progress, ends_at)

    async def _watch(self, ends_at: float) -> None:
        while trio.current_time() < ends_at:
            samples, _ = await self._sample()
            for process, sample in samples.items():
                self.result.samples.setdefault(process, []).append(sample)
            await trio.sleep(self._seconds / _SAMPLES)

    async def _report_progress(self, ends_at: float) -> None:
        while (left := ends_at - trio.current_time()) > 0:
            await trio.sleep(min(left, _PROGRESS))
            print(f"{self.result.journals.submitted:,} tasks, {self.result.faults.total():,} faults", flush=True)

    async def _break(self, proxy: Proxy, ends_at: float) -> None:
        async with trio.open_nursery() as nursery:
            while trio.current_time() < ends_at:
                await trio.sleep(self._random.expovariate(self._faults_per_second))
                if proxy.connections:
                    line = self._random.choice(proxy.connections)
                    fault = break_connection(line, self._random)
                    self.result.faults[fault] += 1
                    if fault in _STALLS:
                        nursery.start_soon(self._resume, line, _STALLS[fault])
        for line in proxy.connections:
            line.resume()
            line.trickle(2**16, 0)

    async def _resume(self, line: ProxiedConnection, longest: float) -> None:
        await trio.sleep(self._random.uniform(longest / 2, longest))
        line.resume()

    async def _submit(self, run_task: RunTask, ends_at: float) -> None:
        """Submit one task after another."""
        journals = self.result.journals
        while trio.current_time() < ends_at:
            number = journals.submitted
            journals.submitted += 1
            ending = journals.endings[number] = await self._ending_of(run_task, f"{number} {self._payload()}")
            # A device that is away rejects its tasks immediately.
            await trio.sleep(0.01 if ending is Ending.COMPLETED else 0.5)

    def _payload(self) -> str:
        """A text that is mostly short, and sometimes has hundreds of kilobytes."""
        return "x" * int(10 ** self._random.uniform(0, 3 if self._random.random() < 0.95 else 6))

    async def _ending_of(self, run_task: RunTask, request: str) -> Ending:
        """Run a task. Some are cancelled."""
        limit = self._random.uniform(0, 0.3) if self._random.random() < _CANCELLED else math.inf
        with trio.move_on_after(limit):
            try:
                result = await run_task(request, timeout=_TIMEOUT)
            except RequestRejected:
                return Ending.REJECTED
            except RequestTimeout:
                return Ending.TIMED_OUT
            except ConnectionLost:
                return Ending.LOST
            if result.status is not TaskStatus.COMPLETED:
                return Ending.FAILED
            return Ending.COMPLETED if result.result == request else Ending.WRONG
        return Ending.CANCELLED


async def soak(seconds: float, devices: int, faults_per_second: float, seed: int) -> Result:
    """Run tasks under faults.

    Args:
        seconds: How long tasks are submitted.
        devices: The number of devices.
        faults_per_second: How often a connection is broken, on average.
        seed: Seed of the faults, the sizes and the cancellations.
    """
    return await _Soak(seconds, devices, faults_per_second, seed).run()


def main() -> None:
    """Run a soak, print what it has shown, and exit with status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--faults-per-second", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = trio.run(soak, 60 * arguments.minutes, arguments.devices, arguments.faults_per_second, arguments.seed)
    print(result)
    sys.exit(bool(result.problems))


if __name__ == "__main__":
    main()
