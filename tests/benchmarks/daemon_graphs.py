"""Task graphs in the daemon: how fast their nodes end, next to single tasks; and a graph of 10,000 nodes."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
import trio

from tests.daemon.support.postgresql import open_postgresql, unique_name

from .daemon_process import DEVICES, configure, running_daemon, running_daemon_server, wait_listening
from .http_client import open_unix
from .meter import cpu_time_of
from .processes import Core, pinned
from .report import Target, print_table
from .trees import WORKING_TREE

if TYPE_CHECKING:
    from .effort import Effort
    from .processes import ServerProcess

_NODES: Final = 2_000
_LARGE: Final = 10_000
_WIDTH: Final = 100
_ACCEPTED: Final = 202


class _Run(NamedTuple):
    """What was measured of some work."""

    accepted: float
    """Seconds until all of it was accepted."""
    slowest: float
    """Milliseconds of the slowest acceptance of a task of another client in this time."""
    ended: float
    """Tasks a second, from the moment in which the devices are free until all are on disk."""
    ended_cpu: float
    """Microseconds of the daemon's CPU time for each of them."""
    memory: float
    """MiB of the daemon, at most."""


_WHAT: Final = (
    "accepted after, s",
    "the slowest acceptance of another client's task in this time, ms",
    f"ended a second, on {DEVICES} devices",
    "µs of the daemon's CPU for each",
    "the daemon's memory at most, MiB",
)


def _graph(nodes: int) -> dict[str, object]:
    """Layers in which each node waits for two of the layer before."""
    return {
        "nodes": [
            {"id": f"n{number}", "request": f"{number}", "device": f"device_{number % DEVICES}"}
            for number in range(nodes)
        ],
        "edges": [
            {"source": f"n{number - _WIDTH - number % _WIDTH + (number + more) % _WIDTH}", "target": f"n{number}"}
            for number in range(_WIDTH, nodes)
            for more in (0, 1)
        ],
    }


async def _submit_tasks(path: Path, nodes: int) -> None:
    async with open_unix(path) as client:
        for number in range(nodes):
            body = {"request": f"{number}", "device": f"device_{number % DEVICES}"}
            answer = await client.ask("POST", "/tasks", body)
            if answer.status != _ACCEPTED:
                raise RuntimeError(f"a task was not accepted: {answer}")


async def _submit_graph(path: Path, nodes: int) -> None:
    async with open_unix(path) as client:
        answer = await client.ask("POST", "/graphs", _graph(nodes))
        if answer.status != _ACCEPTED:
            raise RuntimeError(f"the graph was not accepted: {answer}")


async def _occupy(path: Path) -> None:
    """Run a task on each device that does not end, so that all others wait."""
    async with open_unix(path) as client:
        while (await client.ask("GET", "/ready")).body.get("connected") != DEVICES:  # noqa: ASYNC110  # HTTP has no event for it
            await trio.sleep(0.02)
        for number in range(DEVICES):
            await client.ask("POST", "/tasks", {"request": "hold", "device": f"device_{number}"})
        while (await client.ask("GET", "/summary")).body["tasks"]["running"] < DEVICES:  # noqa: ASYNC110  # as above
            await trio.sleep(0.02)


async def _accept(path: Path, nodes: int, *, is_graph: bool) -> tuple[float, float, int]:
    """Submit everything. Returns the seconds, the slowest acceptance in milliseconds, and the number of tasks of the other client."""
    others: list[float] = []
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def submit_others() -> None:
            async with open_unix(path) as client:
                while True:
                    asked = time.perf_counter()
                    await client.ask("POST", "/tasks", {"request": "other", "device": "device_0"})
                    others.append((time.perf_counter() - asked) * 1e3)
                    await trio.sleep(0.02)

        nursery.start_soon(submit_others)
        await (_submit_graph if is_graph else _submit_tasks)(path, nodes)
        seconds = time.perf_counter() - began
        # An acceptance that waits for the others is measured as well.
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    return seconds, max(others), len(others)


async def _wait_all_ended(path: Path) -> None:
    async with open_unix(path) as client:
        while True:
            tasks = (await client.ask("GET", "/summary")).body["tasks"]
            graphs = (await client.ask("GET", "/graphs?limit=1")).body["graphs"]
            if not tasks["queued"] and not tasks["running"] and all(graph["ended"] for graph in graphs):
                if tasks["failed"] or tasks["lost"]:
                    raise RuntimeError(f"not all tasks have completed: {tasks}")
                return
            await trio.sleep(0.02)


def _measure(server: ServerProcess, directory: Path, database: str | None, nodes: int, *, is_graph: bool) -> _Run:
    path = directory / "s"
    configure(directory, server.url, f"unix:{path}", 2 * _LARGE)
    if database is not None:
        with (directory / "galaxy.toml").open("a") as file:
            file.write(f'\ndatabase = "{database}"\ncluster = "{unique_name()}"\nname = "daemon"\n')
    with running_daemon(WORKING_TREE, directory) as process, pinned(Core.OTHER):
        wait_listening(process, directory)
        trio.run(_occupy, path)
        accepted, slowest, others = trio.run(lambda: _accept(path, nodes, is_graph=is_graph))
        cpu, began = cpu_time_of(process.pid), time.perf_counter()
        server.write_line(f"{nodes + others}")
        # Until then, questions would cost the daemon time.
        server.read_line()
        trio.run(_wait_all_ended, path)
        seconds, cpu = time.perf_counter() - began, cpu_time_of(process.pid) - cpu
        memory = psutil.Process(process.pid).memory_info()
    tasks = nodes + others
    return _Run(accepted, slowest, tasks / seconds, cpu / tasks * 1e6, memory.rss / 2**20)


def bench_daemon_graphs(effort: Effort) -> list[Target]:
    """Run tasks, and as many nodes of a graph, on each database; then a large graph."""
    print(
        f"\n## Graphs in the daemon: layers of {_WIDTH} nodes that wait for two of the layer before, on {DEVICES} devices"
    )
    shapes = ((_NODES, False), (_NODES, True), (_LARGE, True))
    for name in ("SQLite", "PostgreSQL"):
        runs: dict[tuple[int, bool], list[_Run]] = {shape: [] for shape in shapes}
        for _ in range(effort.daemon_rounds):
            for nodes, is_graph in shapes:
                with ExitStack() as stack:
                    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    database = None
                    if name == "PostgreSQL":
                        database = stack.enter_context(open_postgresql(is_durable=True)).url()
                    server = stack.enter_context(running_daemon_server())
                    runs[nodes, is_graph].append(_measure(server, directory, database, nodes, is_graph=is_graph))
        middle = {shape: _Run(*map(median, zip(*taken, strict=True))) for shape, taken in runs.items()}
        tasks, graph, large = middle.values()
        print(f"\n{name}: nodes of a graph over single tasks, ended a second: {graph.ended / tasks.ended:.2f}")
        print_table(
            ("", f"{_NODES:,} tasks", f"a graph of {_NODES:,}", f"a graph of {_LARGE:,}"),
            (
                (what, *(f"{value:,.2f}" if value < 10 else f"{value:,.0f}" for value in values))  # digits to show
                for what, *values in zip(_WHAT, tasks, graph, large, strict=True)
            ),
        )
    return []
