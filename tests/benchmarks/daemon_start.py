"""A daemon that starts with many tasks waiting: until it listens, accepts a task, runs the first one; and in how much memory."""

from __future__ import annotations

import math
import socket
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
import trio

from .daemon_process import configure, running_daemon, running_daemon_server
from .http_client import open_tcp
from .processes import Core, pinned
from .report import Target, at_most, print_table
from .trees import WORKING_TREE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .effort import Effort
    from .http_client import Answer
    from .trees import Tree

_FEW: Final = 20_000
"""As many as the baseline is measured with: it may take long."""
_PATIENCE: Final = 60.0
"""Seconds after which a daemon is given up."""
_INTERVAL: Final = 0.01
_TARGETS_AT: Final = 100_000


class Start(NamedTuple):
    """What was measured; `math.inf` where it did not come about. Seconds from the start of the process."""

    listening: float
    """Until ``/health`` answers."""
    accepting: float
    """Until a task is accepted; with devices, until ``/ready`` says so as well."""
    running: float
    """Until a first task runs; `math.nan` without devices."""
    resident: float
    """MiB of memory then."""


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port


class _Probe:
    """Asks a daemon that may not listen yet, again and again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._began = time.perf_counter()

    async def until(self, is_good: Callable[[Answer], bool], method: str, path: str, body: object = None) -> float:
        """Return how many seconds after the beginning an answer was good; `math.inf` if none was for too long."""
        with trio.move_on_after(max(0, self._began + _PATIENCE - time.perf_counter())):
            while True:
                with suppress(OSError, trio.BrokenResourceError):
                    async with open_tcp(self._port) as client:
                        if is_good(await client.ask(method, path, body)):
                            return time.perf_counter() - self._began
                await trio.sleep(_INTERVAL)
        return math.inf

    async def until_accepting(self) -> float:
        return await self.until(
            lambda answer: answer.status == HTTPStatus.ACCEPTED, "POST", "/tasks", {"request": "hold"}
        )


async def _watch(pid: int, port: int, *, with_devices: bool) -> Start:
    probe = _Probe(port)
    listening = await probe.until(_is_ok, "GET", "/health")
    accepting = await probe.until_accepting()
    running = math.nan
    if with_devices:
        accepting = max(accepting, await probe.until(_is_ok, "GET", "/ready"))
        running = await probe.until(
            lambda answer: bool(answer.body.get("tasks")), "GET", "/tasks?state=running&limit=1"
        )
    return Start(listening, accepting, running, psutil.Process(pid).memory_info().rss / 2**20)


def _is_ok(answer: Answer) -> bool:
    return answer.status == HTTPStatus.OK


def _fill(tree: Tree, directory: Path, port: int, tasks: int) -> None:
    """Let the daemon itself write one task for any device, and copy its row: the columns are those of its tree."""
    with running_daemon(tree, directory):
        if not math.isfinite(trio.run(_Probe(port).until_accepting)):
            raise RuntimeError(f"the daemon of {tree.name} accepts no task: {(directory / 'log').read_text()}")
    with closing(sqlite3.connect(directory / "galaxy.db")) as database, database:
        columns = [
            str(name)
            for _, name, _, _, _, is_key in database.execute("PRAGMA table_info(tasks)")
            if name != "id" and not is_key
        ]
        names = ", ".join(f'"{name}"' for name in columns)
        database.execute(
            f"INSERT INTO tasks (id, {names}) "  # noqa: S608  # the names are the table's own
            f"SELECT lower(hex(randomblob(16))), {names} FROM tasks, "
            "(WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) SELECT n FROM numbers)",
            (tasks - 1,),
        )


def _start(tree: Tree, directory: Path, port: int, *, with_devices: bool) -> Start:
    with running_daemon(tree, directory) as process, pinned(Core.OTHER):
        return trio.run(partial(_watch, process.pid, port, with_devices=with_devices))


def _measure(tree: Tree, tasks: int) -> tuple[Start, Start]:
    """Start it twice: while its devices' server is away, and while all of them are there."""
    with tempfile.TemporaryDirectory() as name:
        directory, port = Path(name), _free_port()
        listen, max_queued = f"127.0.0.1:{port}", 2 * tasks
        configure(directory, f"ws://127.0.0.1:{_free_port()}/ws", listen, max_queued)
        _fill(tree, directory, port, tasks)
        alone = _start(tree, directory, port, with_devices=False)
        with running_daemon_server() as server:
            configure(directory, server.url, listen, max_queued)
            return alone, _start(tree, directory, port, with_devices=True)


def bench_daemon_start(trees: Sequence[Tree], effort: Effort) -> list[Target]:
    """Start a daemon with many tasks for any device waiting, in each tree."""
    print("\n## The start of the daemon, with tasks for any device waiting")
    targets: list[Target] = []
    rows: list[tuple[str, ...]] = []
    for tasks in effort.queued:
        for tree in trees:
            if tree is not WORKING_TREE and tasks > _FEW:
                continue
            starts = _measure(tree, tasks)
            rows += [
                (f"{tasks:,}", tree.name, devices, *map(_shown, start))
                for devices, start in zip(("away", "there"), starts, strict=True)
            ]
            if tree is WORKING_TREE and tasks == _TARGETS_AT:
                worst = Start(*map(max, zip(*starts, strict=True)))
                what = f"daemon, {tasks:,} waiting"
                targets = [
                    at_most(f"{what}: listening after, s", 1.0, worst.listening),
                    at_most(f"{what}: ready after, s", 5.0, worst.accepting),
                    at_most(f"{what}: memory, MiB", 150.0, worst.resident),
                ]
    print_table(
        ("waiting", "tree", "devices", "listening, s", "accepting, s", "first task runs, s", "memory, MiB"), rows
    )
    return targets


def _shown(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if math.isfinite(value) else f"> {_PATIENCE:g}"
