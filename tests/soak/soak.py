"""Run tasks under faults for a long time: ``nox -s soak``, for 20 minutes, or ``-- --minutes N``. Status 1 for a broken promise or a leak.

Devices, their server and their constellations run over TCP, in processes of their own, and all connections pass a proxy that cuts, resets,
stalls and slows them down. At the end the journals of all ends are compared, and so is what each process used over time.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from galaxy_trio import ConnectionLost, RequestRejected, RequestTimeout
from galaxy_trio._concurrency.background import first_leaf
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import CONNECTED
from galaxy_trio.messages import TaskStatus
from tests.connection.support.faults import Fault, break_connection
from tests.connection.support.proxy import ProxiedConnection, Proxy, open_proxy
from tests.soak.breakages import BREAKAGES, break_package
from tests.soak.journals import Counts, Ending, Journals, broken_promises
from tests.soak.processes import OPTIONS, Process, Report, SoakEnded, open_process
from tests.soak.samples import Idle, Sample, growth_of, leaks_of, table_of, take_idle_sample, take_sample
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from galaxy_trio.messages import TaskResult
    from tests.simulation.patching import Mutation


class RunTask(Protocol):
    """`Constellation.run_task` or `Device.run_task`."""

    async def __call__(self, request: str, *, timeout: float) -> TaskResult:
        """Run a task."""
        ...


SHORT: Final = (12.0, 20, 8.0, 1)
"""The seconds, devices, faults per second and seed of a soak that finds all `BREAKAGES`."""
_CONSTELLATIONS: Final = 5
_SAMPLES: Final = 100
_WARM_UP: Final = 2.0
"""Seconds of work without faults, before it is measured what the processes use."""
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
                table_of({name: taken for name, taken in self.samples.items() if len(taken) >= 4}),
                "",
                *(self.problems or ["All checks passed."]),
            ]
        )


class _Soak:
    """The main process: the proxy and the constellations, whose tasks it submits and whose connections it breaks."""

    def __init__(self, seconds: float, devices: int, faults_per_second: float, seed: int, breakage: str) -> None:
        self.result = Result()
        self._breakage = breakage
        self._seconds = seconds
        self._devices = devices
        self._faults_per_second = faults_per_second
        self._random = Random(seed)
        self._processes: dict[str, Process] = {}
        self._constellations: list[Constellation] = []

    async def run(self) -> None:
        """Run the soak. `result` is what it has shown."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = await stack.enter_async_context(open_process(self._breakage, "server", folder))
            self._processes["server"] = server
            with trio.fail_after(SECONDS):
                url = (await server.read_line()).strip('"')
            proxy = await stack.enter_async_context(open_proxy(url))
            self._processes["devices"] = await stack.enter_async_context(
                open_process(self._breakage, "devices", folder, proxy.url, self._devices)
            )
            for number in range(_CONSTELLATIONS):
                configs = [DeviceConfig(f"d{n}", proxy.url) for n in range(number, self._devices, _CONSTELLATIONS)]
                opened = open_constellation(
                    configs, reconnect_delay=0.2, keepalive_expiry=1, options=OPTIONS, random=self._random
                )
                self._constellations.append(await stack.enter_async_context(opened))
            # Before the load, everything has been used once.
            await self._wait_idle()
            await self._work(_WARM_UP)
            await self._wait_idle()
            before = await self._idle_samples()
            await self._work(self._seconds, proxy)
            self.result.problems += await self._leaks_since(before)
            for process in self._processes.values():
                await process.write()
            self.result.journals.sessions = Counts.read(folder / "sessions")
            self.result.journals.begun = Counts.read(folder / "begun")
            self.result.journals.done = Counts.read(folder / "done")
        self.result.problems += broken_promises(self.result.journals)
        for name, samples in self.result.samples.items():
            self.result.problems += growth_of(name, samples)

    async def _reports(self) -> dict[str, Report]:
        """Ask all processes for what they use, and for what goes on in them."""
        return {
            "constellations": self._own_report(),
            **{name: await each.report() for name, each in self._processes.items()},
        }

    def _own_report(self) -> Report:
        statistics = [constellation.statistics() for constellation in self._constellations]
        devices = [device for constellation in self._constellations for device in constellation.devices.values()]
        busy = {
            "running tasks": sum(each.running for each in statistics),
            "queued tasks": sum(each.queued for each in statistics),
            "idle connections": sum(device.statistics().idle_connections for device in devices),
            "devices that are not connected": sum(device.status not in CONNECTED for device in devices),
        }
        return Report(take_sample(), busy)

    async def _busy(self) -> list[str]:
        """Count what goes on in the processes."""
        reports = await self._reports()
        return [
            f"{count:,} {what} ({name})"
            for name, report in reports.items()
            for what, count in report.busy.items()
            if count
        ]

    async def _idle_samples(self) -> dict[str, Idle]:
        return {
            "constellations": take_idle_sample(),
            **{name: await each.report_idle() for name, each in self._processes.items()},
        }

    async def _leaks_since(self, before: dict[str, Idle]) -> list[str]:
        """Wait until nothing goes on and the processes use no more than before: half-open connections end with their liveness timeout.

        Returns:
            What still goes on, or what is more than before, after `SECONDS`. None if nothing is.
        """
        problems: list[str] = []
        ends_at = trio.current_time() + SECONDS
        while trio.current_time() < ends_at:
            busy = await self._busy()
            problems = [f"everything should have ended after the load, but there are {what}" for what in busy]
            if not busy:
                after = await self._idle_samples()
                problems = [
                    problem for name in before for problem in leaks_of(name, before[name], after[name], self._devices)
                ]
                if not problems:
                    break
            await trio.sleep(0.5)
        return problems

    async def _wait_idle(self) -> None:
        ends_at = trio.current_time() + SECONDS
        while busy := await self._busy():
            if trio.current_time() > ends_at:
                raise SoakEnded(f"before the load, these did not end within {SECONDS:g} s: {', '.join(busy)}")
            await trio.sleep(0.2)

    async def _work(self, seconds: float, proxy: Proxy | None = None) -> None:
        """Submit tasks until the time is over, and wait for their endings, at most for `SECONDS`. The proxy's connections are broken."""
        ends_at = trio.current_time() + seconds
        with trio.move_on_at(ends_at + SECONDS):
            async with trio.open_nursery() as nursery:
                for constellation in self._constellations:
                    for device in constellation.devices.values():
                        nursery.start_soon(self._submit, constellation.run_task, ends_at)
                        nursery.start_soon(self._submit, device.run_task, ends_at)
                if proxy is not None:
                    nursery.start_soon(self._watch, ends_at)
                    nursery.start_soon(self._break, proxy, ends_at)
                    nursery.start_soon(self._report_progress, ends_at)

    async def _watch(self, ends_at: float) -> None:
        while trio.current_time() < ends_at:
            for process, report in (await self._reports()).items():
                self.result.samples.setdefault(process, []).append(report.sample)
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
        """Submit one task after another. Half of them have no timeout, and so end only if they are notified of their end."""
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
                result = await run_task(request, timeout=_TIMEOUT if self._random.random() < 0.5 else math.inf)
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


async def soak(seconds: float, devices: int, faults_per_second: float, seed: int, breakage: str = "") -> Result:
    """Run tasks under faults.

    Args:
        seconds: How long tasks are submitted.
        devices: The number of devices.
        faults_per_second: How often a connection is broken, on average.
        seed: Seed of the faults, the sizes and the cancellations.
        breakage: The name of one of `BREAKAGES`, with which all processes run.
    """
    run = _Soak(seconds, devices, faults_per_second, seed, breakage)
    with break_package(breakage):
        try:
            await run.run()
        except* SoakEnded as ended:
            run.result.problems.append(str(first_leaf(ended)))
        except* Exception as crash:  # noqa: BLE001  # whatever is wrong with the package is a result
            traceback.print_exception(crash)
            first = first_leaf(crash)
            run.result.problems.append(
                f"the process of the constellations has crashed: {type(first).__name__}: {first}"
            )
    return run.result


def find(breakage: Mutation) -> bool:
    """Run a short soak with a breakage, print what it has shown, and return whether that is what it must show."""
    print(f"{breakage.__name__}: {breakage.__doc__}", flush=True)
    result = trio.run(soak, *SHORT, breakage.__name__)
    found = any(BREAKAGES[breakage] in problem for problem in result.problems)
    print(*(f"    {problem}" for problem in result.problems), sep="\n")
    print("found." if found else f"NOT FOUND: no problem says {BREAKAGES[breakage]!r}.", flush=True)
    return found


def main() -> None:
    """Run a soak, print what it has shown, and exit with status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--faults-per-second", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--breakages", nargs="*", metavar="NAME", help="check that short soaks find these deliberate breakages, or all"
    )
    arguments = parser.parse_args()
    if arguments.breakages is not None:
        chosen = [each for each in BREAKAGES if not arguments.breakages or each.__name__ in arguments.breakages]
        missed = [breakage.__name__ for breakage in chosen if not find(breakage)]
        print(f"{len(chosen)} breakages, {len(missed)} not found{': ' if missed else '.'}{', '.join(missed)}")
        sys.exit(bool(missed))
    result = trio.run(soak, 60 * arguments.minutes, arguments.devices, arguments.faults_per_second, arguments.seed)
    print(result)
    sys.exit(bool(result.problems))


if __name__ == "__main__":
    main()
