"""The daemon with many tasks: how fast it accepts them, and how fast they end. The baseline takes turns with the working tree."""

from __future__ import annotations

import tempfile
import time
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
import trio

from .daemon_process import DEVICES, configure, running_daemon, running_daemon_server, wait_listening
from .http_client import open_unix
from .meter import cpu_time_of
from .processes import Core, pinned
from .report import Target, at_least, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .effort import Effort
    from .trees import Tree

CLIENTS: Final = 16
_ALONE: Final = 400
_TOGETHER: Final = 1_600
TASKS: Final = _ALONE + _TOGETHER
_ACCEPTED: Final = 202
_MANY: Final = 2 * TASKS


class Daemon(NamedTuple):
    """What was measured in one round."""

    accepted: float
    """Tasks a second, each of them on disk, of all clients together."""
    accepted_cpu: float
    """Microseconds of the daemon's CPU time for one of them."""
    median: float
    """Milliseconds until one is accepted."""
    slowest: float
    """Of a hundred."""
    accepted_alone: float
    """Tasks a second, of one client that submits one after the other."""
    accepted_alone_cpu: float
    ended: float
    """Tasks a second, each of them on disk three times."""
    ended_cpu: float
    server_busy: float
    """The share of the time in which tasks ended for which the server had its core, in percent: near 100 the rate is the server's."""
    resident: float
    """MiB with all of them waiting."""


_WHAT: Final = (
    f"accepted a second, {CLIENTS} clients",
    "µs of CPU for each",
    "median until it is on disk and accepted, ms",
    "the slowest of a hundred, ms",
    "accepted a second, one client",
    "µs of CPU for each",
    f"ended a second, on {DEVICES} devices",
    "µs of CPU for each",
    "the server's share of its core while they end, %",
    f"memory with {TASKS:,} waiting, MiB",
)


class _Accepted(NamedTuple):
    seconds: float
    cpu: float
    latencies: list[float]


async def _submit(path: Path, numbers: Iterator[int], tasks: int, latencies: list[float]) -> None:
    async with open_unix(path) as client:
        for number in numbers:
            if number >= tasks:
                return
            began = time.perf_counter()
            answer = await client.ask(
                "POST", "/tasks", {"request": f"{number}", "device": f"device_{number % DEVICES}"}
            )
            latencies.append(time.perf_counter() - began)
            if answer.status != _ACCEPTED:
                raise RuntimeError(f"a task was not accepted: {answer}")


async def _submit_all(pid: int, path: Path, tasks: int, clients: int) -> _Accepted:
    latencies: list[float] = []
    numbers = count()
    cpu, began = cpu_time_of(pid), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(_submit, path, numbers, tasks, latencies)
    return _Accepted(time.perf_counter() - began, cpu_time_of(pid) - cpu, latencies)


async def _occupy(path: Path) -> None:
    """Run a task on each device that does not end, so that all others wait."""
    async with open_unix(path) as client:
        held = [
            (await client.ask("POST", "/tasks", {"request": "hold", "device": f"device_{number}"})).body["id"]
            for number in range(DEVICES)
        ]
        for task in held:
            while (await client.ask("GET", f"/tasks/{task}")).body["state"] != "running":  # noqa: ASYNC110
                await trio.sleep(0.01)


async def _wait_all_on_disk(path: Path) -> None:
    async with open_unix(path) as client:
        for state in ("queued", "running"):
            while (await client.ask("GET", f"/tasks?state={state}&limit=1")).body["tasks"]:  # noqa: ASYNC110
                await trio.sleep(0.002)
        failed = (await client.ask("GET", "/tasks?state=failed&limit=1")).body["tasks"]
        if failed:
            raise RuntimeError(f"a task failed: {failed}")


def _measure_once(tree: Tree) -> Daemon:
    with tempfile.TemporaryDirectory() as name, running_daemon_server() as server:
        directory = Path(name)
        path = directory / "s"
        configure(directory, server.url, f"unix:{path}", _MANY)
        with running_daemon(tree, directory) as process, pinned(Core.OTHER):
            wait_listening(process, directory)
            trio.run(_occupy, path)
            alone = trio.run(_submit_all, process.pid, path, _ALONE, 1)
            together = trio.run(_submit_all, process.pid, path, _TOGETHER, CLIENTS)
            resident = psutil.Process(process.pid).memory_info().rss
            cpu, server_cpu, began = cpu_time_of(process.pid), cpu_time_of(server.pid), time.perf_counter()
            server.write_line(f"{TASKS}")
            server.read_line()
            trio.run(_wait_all_on_disk, path)
            seconds = time.perf_counter() - began
            cpu, server_cpu = cpu_time_of(process.pid) - cpu, cpu_time_of(server.pid) - server_cpu
    return Daemon(
        accepted=_TOGETHER / together.seconds,
        accepted_cpu=together.cpu / _TOGETHER * 1e6,
        median=median(together.latencies) * 1e3,
        slowest=quantiles(together.latencies, n=100)[98] * 1e3,
        accepted_alone=_ALONE / alone.seconds,
        accepted_alone_cpu=alone.cpu / _ALONE * 1e6,
        ended=TASKS / seconds,
        ended_cpu=cpu / TASKS * 1e6,
        server_busy=server_cpu / seconds * 100,
        resident=resident / 2**20,
    )


def bench_daemon(trees: Sequence[Tree], effort: Effort) -> list[Target]:
    """Accept tasks and run them, in each tree."""
    print(f"\n## The daemon: {TASKS:,} tasks on {DEVICES} devices, over its Unix socket")
    taken: dict[str, list[Daemon]] = {tree.name: [] for tree in trees}
    for _ in range(effort.daemon_rounds):
        for tree in trees:
            taken[tree.name].append(_measure_once(tree))
    middle = [Daemon(*map(median, zip(*rounds, strict=True))) for rounds in taken.values()]
    if len(trees) == 1:
        rows = [(what, f"{value:,.0f}") for what, value in zip(_WHAT, middle[0], strict=True)]
        print_table(("", trees[0].name), rows)
        return []
    print_table(
        ("", *taken, "ratio"),
        (
            (what, f"{before:,.0f}", f"{now:,.0f}", f"{now / before:.2f}")
            for what, before, now in zip(_WHAT, *middle, strict=True)
        ),
    )
    before, now = middle
    return [
        at_least(f"daemon: accepted/s of {CLIENTS} clients, of the baseline's", 1.5, now.accepted / before.accepted),
        at_least(
            "daemon: accepted/s of one client, of the baseline's", 1.5, now.accepted_alone / before.accepted_alone
        ),
        at_least("daemon: ended/s, of the baseline's", 6.0, now.ended / before.ended),
    ]
