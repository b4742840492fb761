"""Daemons that share a PostgreSQL database: how fast they accept and end tasks, next to one on SQLite; how fast a dead one is replaced."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
import trio

from tests.daemon.support.postgresql import PostgresqlServer, open_postgresql, unique_name

from .daemon_process import DEVICES, configure, running_daemon, running_daemon_server, wait_listening
from .http_client import open_unix
from .meter import cpu_time_of
from .report import Target, print_table
from .trees import WORKING_TREE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .effort import Effort

CLIENTS: Final = 16
_TASKS: Final = 1_600
_FEED: Final = 100
_LEASE: Final = 3
_ACCEPTED: Final = 202


class _Cluster(NamedTuple):
    """What was measured of some daemons."""

    accepted: float
    """Tasks a second, each of them on disk, of 16 clients at all daemons together."""
    accepted_cpu: float
    """Microseconds of the daemons' CPU time for one of them."""
    accepted_database: float
    """Microseconds of PostgreSQL's."""
    ended: float
    ended_cpu: float
    ended_database: float


_WHAT: Final = (
    f"accepted a second, {CLIENTS} clients",
    "µs of the daemons' CPU for each",
    "µs of PostgreSQL's CPU for each",
    f"ended a second, on {DEVICES} devices",
    "µs of the daemons' CPU for each",
    "µs of PostgreSQL's CPU for each",
)


class _Daemons:
    """Running daemons with their clients' sockets."""

    def __init__(self, directories: Sequence[Path], pids: Sequence[int], database: PostgresqlServer | None) -> None:
        self.paths = [directory / "s" for directory in directories]
        self.pids = pids
        self._database = database

    def cpu(self) -> tuple[float, float]:
        """The CPU time of the daemons, and that of PostgreSQL, in seconds."""
        return sum(map(cpu_time_of, self.pids)), 0.0 if self._database is None else _cpu_of_server(self._database)


def _cpu_of_server(server: PostgresqlServer) -> float:
    pid = int((server.directory / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
    times = psutil.Process(pid).cpu_times()
    # A process for each connection, and those that have ended.
    children = [child.cpu_times() for child in psutil.Process(pid).children()]
    alive = sum(time.user + time.system for time in (times, *children))
    return alive + times.children_user + times.children_system


async def _submit(path: Path, numbers: Iterator[int]) -> None:
    async with open_unix(path) as client:
        for number in numbers:
            if number >= _TASKS:
                return
            device = f"device_{number % DEVICES}"
            answer = await client.ask("POST", "/tasks", {"request": f"{number}", "device": device})
            if answer.status != _ACCEPTED:
                raise RuntimeError(f"a task was not accepted: {answer}")


async def _submit_all(paths: Sequence[Path]) -> None:
    numbers = count()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(_submit, paths[number % len(paths)], numbers)


async def _wait_connected(path: Path) -> None:
    async with open_unix(path) as client:
        while (await client.ask("GET", "/ready")).body.get("connected") != DEVICES:  # noqa: ASYNC110  # HTTP has no event for it
            await trio.sleep(0.02)


async def _occupy(path: Path) -> None:
    """Run a task on each device that does not end, so that all others wait."""
    async with open_unix(path) as client:
        for number in range(DEVICES):
            await client.ask("POST", "/tasks", {"request": "hold", "device": f"device_{number}"})
        while (await client.ask("GET", "/summary")).body["tasks"]["running"] < DEVICES:  # noqa: ASYNC110  # HTTP has no event for it
            await trio.sleep(0.02)


async def _wait_all_ended(path: Path) -> None:
    async with open_unix(path) as client:
        while True:
            tasks = (await client.ask("GET", "/summary")).body["tasks"]
            if not tasks["queued"] and not tasks["running"]:
                return
            await trio.sleep(0.02)


async def _measure_feed(paths: Sequence[Path]) -> list[float]:
    """The milliseconds from an acceptance at one daemon until its event is at a listener of another one."""
    latencies: list[float] = []
    accepted: dict[str, float] = {}
    async with open_unix(paths[0]) as client, await trio.open_unix_socket(paths[1]) as stream:
        await stream.send_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = bytes(await stream.receive_some())

        async def listen() -> None:
            nonlocal received
            while len(latencies) < _FEED:
                received += bytes(await stream.receive_some())
                now = time.perf_counter()
                for task in [task for task in accepted if task.encode() in received]:
                    latencies.append((now - accepted.pop(task)) * 1e3)
                    received = b""

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number in range(_FEED):
                began = time.perf_counter()
                task = (await client.ask("POST", "/tasks", {"request": f"feed {number}", "device": "device_0"})).body[
                    "id"
                ]
                accepted[task] = began
                await trio.sleep(0.01)
    return latencies


def _start(stack: ExitStack, url: str, daemons: int, database: PostgresqlServer | None) -> _Daemons:
    place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    cluster = unique_name()
    directories, pids = [place / f"{number}" for number in range(daemons)], list[int]()
    for number, directory in enumerate(directories):
        directory.mkdir()
        configure(directory, url, f"unix:{directory / 's'}", 3 * _TASKS)
        if database is not None:
            with (directory / "galaxy.toml").open("a") as settings:
                settings.write(
                    f'\ndatabase = "{database.url()}"\ncluster = "{cluster}"\nlease = {_LEASE}\nname = "daemon-{number}"\n'
                )
        process = stack.enter_context(running_daemon(WORKING_TREE, directory, core=None))
        wait_listening(process, directory)
        pids.append(process.pid)
    running = _Daemons(directories, pids, database)
    for path in running.paths:
        trio.run(_wait_connected, path)
    return running


def _measure(daemons: int, database: PostgresqlServer | None) -> _Cluster:
    with ExitStack() as stack:
        server = stack.enter_context(running_daemon_server())
        running = _start(stack, server.url, daemons, database)
        trio.run(_occupy, running.paths[0])
        before, began = running.cpu(), time.perf_counter()
        trio.run(_submit_all, running.paths)
        seconds, after = time.perf_counter() - began, running.cpu()
        accepted = _TASKS / seconds, *(1e6 * (now - then) / _TASKS for now, then in zip(after, before, strict=True))
        before, began = running.cpu(), time.perf_counter()
        server.write_line(f"{_TASKS}")
        server.read_line()
        trio.run(_wait_all_ended, running.paths[0])
        seconds, after = time.perf_counter() - began, running.cpu()
        ended = _TASKS / seconds, *(1e6 * (now - then) / _TASKS for now, then in zip(after, before, strict=True))
    return _Cluster(accepted[0], accepted[1], accepted[2], ended[0], ended[1], ended[2])


def _measure_takeover(database: PostgresqlServer) -> float:
    """Seconds from the kill of one of two daemons until the other one has connected all devices."""
    with ExitStack() as stack:
        server = stack.enter_context(running_daemon_server())
        running = _start(stack, server.url, 2, database)
        psutil.Process(running.pids[1]).kill()
        began = time.perf_counter()
        trio.run(_wait_taken_over, running.paths[0])
        return time.perf_counter() - began


async def _wait_taken_over(path: Path) -> None:
    async with open_unix(path) as client:
        while True:
            devices = (await client.ask("GET", "/devices")).body["devices"]
            if all(device["owner"] == "daemon-0" and device["status"] in ("idle", "busy") for device in devices):
                return
            await trio.sleep(0.02)


def _feed(database: PostgresqlServer) -> list[float]:
    with ExitStack() as stack:
        server = stack.enter_context(running_daemon_server())
        return trio.run(_measure_feed, _start(stack, server.url, 2, database).paths)


def bench_cluster(effort: Effort) -> list[Target]:
    """Run tasks by one daemon on SQLite, and by one, two and four on PostgreSQL, all in the same processes' order."""
    with open_postgresql(is_durable=True) as database:
        setups = {"SQLite": (1, None), **{f"PostgreSQL, {n}": (n, database) for n in (1, 2, 4)}}
        taken: dict[str, list[_Cluster]] = {name: [] for name in setups}
        for _ in range(effort.daemon_rounds):
            for name, setup in setups.items():
                taken[name].append(_measure(*setup))
        takeovers = [_measure_takeover(database) for _ in range(effort.daemon_rounds)]
        feed = _feed(database)
    middle = [_Cluster(*map(median, zip(*rounds, strict=True))) for rounds in taken.values()]
    print(f"\n## Daemons that share a database: {_TASKS:,} tasks; all processes share this machine's cores")
    print_table(
        ("", *taken),
        [(what, *(f"{value:,.0f}" for value in values)) for what, *values in zip(_WHAT, *middle, strict=True)],
    )
    print_table(
        ("what", "measured"),
        [
            (f"a killed daemon's devices are connected by another, lease {_LEASE} s", f"{median(takeovers):.1f} s"),
            ("from a request at one daemon to its event at another, median", f"{median(feed):.1f} ms"),
            ("the slowest of a hundred", f"{quantiles(feed, n=100)[98]:.1f} ms"),
        ],
    )
    return []
