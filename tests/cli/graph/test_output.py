"""What a running graph prints: a live table, lines, or JSON."""

from __future__ import annotations

import io
import json
import random
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
from rich.console import Console

from galaxy_trio import DeviceConfig, open_constellation
from galaxy_trio._cli.graph.output import JsonLines, Lines, Output, Table, line_of
from galaxy_trio._cli.graph.progress import GraphProgress
from galaxy_trio._cli.graph.shown import LocalGraph
from galaxy_trio.events import EventsLost
from galaxy_trio.graph import (
    Edge,
    Graph,
    GraphEdited,
    GraphRun,
    GraphSnapshot,
    Node,
    NodeEnded,
    NodeResult,
    NodeState,
    When,
    open_graph,
)
from tests.cli.support.hostile import EVIL, harmful_characters
from tests.graph.support.sessions import Tasks, open_tasks
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

GRAPH = Graph(
    [
        Node("fetch", "fetch", retries=1, backoff=60),
        Node("mail", "mail"),
        Node("alarm", "alarm"),
        Node("late", "late"),
    ],
    [
        Edge("fetch", "mail", id="normal"),
        Edge("fetch", "alarm", When.FAILURE, id="failed"),
        Edge("mail", "late", When.END),
    ],
)


def sentences(printed: str) -> list[str]:
    """Return the lines without their times."""
    lines = printed.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


@asynccontextmanager
async def open_shown(graph: Graph | GraphSnapshot, output: Output, tasks: Tasks) -> AsyncGenerator[GraphRun]:
    """Run a graph and show it, until it has been shown to its end."""
    async with open_graph(tasks.constellation, graph, random=random.Random(1)) as run, trio.open_nursery() as nursery:
        nursery.start_soon(output.show, LocalGraph(run, tasks.constellation))
        yield run


async def run_whole_graph(output: Output) -> None:
    async with open_tasks("d1") as tasks, open_shown(GRAPH, output, tasks) as run:
        await tasks.wait_running("fetch")
        await trio.sleep(2)
        await tasks.fail("fetch", why=f"no paper{EVIL}")
        await tasks.wait_running("fetch")
        await trio.sleep(3)
        await tasks.complete("fetch")
        await tasks.wait_running("mail")
        await trio.sleep(180)
        run.cancel("mail")
        await tasks.wait_running("late")
        await tasks.fail("late", why="")


async def test_each_start_and_end_is_a_line(autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    await run_whole_graph(Lines())
    shown = capsys.readouterr().out
    started, retried, *rest = sentences(shown)
    assert started == "fetch started on d1"
    assert re.fullmatch(r"fetch failed on d1 after 2 s: no paper.* \(retry in \d+ s\)", retried), retried
    assert rest == [
        "fetch started on d1, attempt 2 of 2",
        "fetch completed on d1 after 3 s",
        "alarm was skipped (after a failure of fetch): fetch is completed",
        "mail started on d1",
        "mail was stopped on d1 after 3 min",
        "late started on d1",
        "late failed on d1 after 0 s",
    ]
    assert not harmful_characters(shown)


async def test_each_event_is_a_json_object(autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    await run_whole_graph(JsonLines())
    shown = capsys.readouterr().out
    assert not harmful_characters(shown)
    events = [cast("dict[str, object]", json.loads(line)) for line in shown.splitlines()]
    assert all(event.pop("time") for event in events)
    assert events[0] == {
        "event": "GraphSnapshot",
        "version": 0,
        "states": {"fetch": "ready", "mail": "waiting", "alarm": "waiting", "late": "waiting"},
    }
    assert {"event": "NodeSkipped", "node_id": "alarm", "edge_id": "failed"} in events
    assert {"event": "NodeEnded", "node_id": "fetch", "state": "completed", "error": None} in events
    started = next(event for event in events if event["event"] == "NodeStarted")
    assert (started["node_id"], started["attempt"], started["device_id"]) == ("fetch", 1, "d1")
    assert events[-1] == {"event": "GraphEnded", "state": "partially failed"}


async def test_cancelling_a_large_graph_loses_no_events(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [Node(str(number), "x") for number in range(3_000)]
    graph = Graph(nodes, [Edge("0", node.id) for node in nodes[1:]])
    async with open_tasks("d1") as tasks, open_shown(graph, JsonLines(), tasks) as run:
        await tasks.wait_running("x")
        run.cancel()
    shown = capsys.readouterr().out
    assert shown.count('"NodeEnded"') == 3_000
    assert "EventsLost" not in shown


async def test_graph_that_has_ended_is_shown_and_has_no_events(capsys: pytest.CaptureFixture[str]) -> None:
    ended = GraphSnapshot(Graph([Node("a", "a")]), nodes={"a": NodeResult(NodeState.COMPLETED)})
    async with open_tasks() as tasks:
        for output in (Lines(), JsonLines(), Table(Console(file=io.StringIO(), width=80))):
            with trio.fail_after(5):
                async with open_shown(ended, output, tasks):
                    pass
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["states"] == {"a": "completed"}


@pytest.mark.parametrize("output", [Lines(), JsonLines()], ids=["lines", "json"])
async def test_device_that_is_away_is_reported_and_the_same_reason_once_as_a_line(
    output: Output, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(config: DeviceConfig) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError("no way")

    async with (
        open_constellation([DeviceConfig("d9", "ws://h")], connect=refuse, random=random.Random(1)) as constellation,
        open_graph(constellation, Graph([Node("a", "a")])) as run,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(output.show, LocalGraph(run, constellation))
        await trio.sleep(100)
        run.cancel()
    shown = capsys.readouterr().out
    if isinstance(output, Lines):
        [line] = sentences(shown)
        assert line.startswith("d9 is not connected: ")
    else:
        assert shown.count('"event": "DeviceDisconnected"') > 3


async def test_table_shows_the_last_state_and_what_is_waited_for() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, height=24, force_terminal=True, force_interactive=True)

    async def refuse(config: DeviceConfig) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError("no way")

    output = Table(console)
    async with (
        open_constellation([DeviceConfig("d9", "ws://h")], connect=refuse) as constellation,
        open_graph(constellation, Graph([Node("a", "a")])) as run,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(output.show, LocalGraph(run, constellation))
        await until(lambda: "d9 is disconnected: " in screen.getvalue())
        assert "ready" in screen.getvalue()
        output.stopping()
        await until(lambda: "Ctrl-C again" in screen.getvalue())
        run.cancel()
    last = screen.getvalue().rpartition("node")[2]
    assert "cancelled" in last
    assert "d9" not in last
    assert "Ctrl-C" not in last


async def test_absent_devices_are_not_shown_while_no_node_waits_for_a_device(autojump_clock: MockClock) -> None:
    screen = io.StringIO()
    output = Table(Console(file=screen, width=80, height=24, force_terminal=True, force_interactive=True))
    async with open_tasks("d1") as tasks:

        async def connect(config: DeviceConfig) -> trio.abc.Stream:
            if config.device_id == "d9":
                raise OSError("no way")
            return await tasks.fleet.connect(config)

        devices = [*tasks.fleet.configs, DeviceConfig("d9", "ws://h")]
        async with (
            open_constellation(devices, connect=connect) as constellation,
            open_graph(constellation, Graph([Node("a", "a")])) as run,
            trio.open_nursery() as nursery,
        ):
            await tasks.wait_running("a")
            nursery.start_soon(output.show, LocalGraph(run, constellation))
            await trio.sleep(10)
            await tasks.complete("a")
    assert "running" in screen.getvalue()
    assert "d9" not in screen.getvalue()


def test_events_that_a_person_does_not_look_for_have_no_line() -> None:
    progress = GraphProgress(GraphSnapshot(GRAPH))
    assert line_of(GraphEdited(1, ["x"], [], []), None, progress) is None
    node = progress.nodes["mail"]
    assert line_of(NodeEnded("mail", NodeState.CANCELLED, "it was cancelled"), node, progress) is None
    assert line_of(NodeEnded("mail", NodeState.LOST, "gone"), node, progress) == "mail was lost: gone"
    assert (
        line_of(EventsLost(1_234), None, progress)
        == "1,234 events not shown: they came faster than they could be printed"
    )
