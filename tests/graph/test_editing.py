"""Edits, holds and retries of graphs that run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.graph import (
    Edge,
    Graph,
    GraphEdited,
    GraphEnded,
    GraphSnapshot,
    GraphState,
    Node,
    NodeEnded,
    NodeReady,
    NodeSkipped,
    NodeStarted,
    NodeState,
    NodeWaiting,
    When,
    open_graph,
)

from .support.sessions import open_tasks
from .test_run import chain, nodes, states

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.graph import GraphEdit
    from galaxy_trio.messages import JSON


async def test_held_node_does_not_start_and_its_siblings_do(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a", "b", "c"))) as run:
        with run.hold("a", "b"), run.hold("b"):
            await tasks.wait_running("c")
            await trio.sleep(100)
            assert tasks.running == {"c"}
        await tasks.wait_running("a", "b", "c")


async def test_edges_of_what_ends_under_a_hold_are_decided_at_its_release(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b")) as run:
        await tasks.wait_running("a")
        with run.hold("a"):
            await tasks.complete("a")
            assert states(run) == {"a": "completed", "b": "waiting"}
            run.edit(lambda edit: edit.add(Node("between", "between"), after=["a"]))
            run.edit(lambda edit: edit.connect(Edge("between", "b")))
        await tasks.complete("between", "b")
        assert (await run.wait()).state is GraphState.COMPLETED


async def test_condition_that_raises_leaves_the_graph_as_it_was(autojump_clock: MockClock) -> None:
    def broken(result: JSON) -> bool:
        raise ZeroDivisionError(result)

    def edit(change: GraphEdit) -> None:
        change.add(Node("new", "new"))
        change.connect(Edge("a", "new", When.CONDITION, condition=broken))

    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a", "b"))) as run:
        await tasks.complete("a", result=None)
        before = run.snapshot()
        with pytest.raises(ZeroDivisionError):
            run.edit(edit)
        assert run.snapshot() == before


async def test_subscriber_receives_a_snapshot_and_then_every_event_in_order(autojump_clock: MockClock) -> None:
    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, Graph(nodes("a"))) as run,
        run.subscribe() as events,
    ):
        run.edit(lambda edit: edit.add(Node("b", "b"), after="a"))
        await tasks.complete("a", "b")
        await run.wait()
        seen = [await anext(events) for _ in range(8)]
        assert run.version == run.snapshot().version == 1
    assert [type(event) for event in seen] == [
        GraphSnapshot,
        GraphEdited,
        NodeStarted,
        NodeEnded,
        NodeReady,
        NodeStarted,
        NodeEnded,
        GraphEnded,
    ]


async def test_subscriber_learns_of_the_end_of_a_graph_once_although_a_node_is_held_later(
    autojump_clock: MockClock,
) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a"))) as run:
        await tasks.complete("a")
        async with run.subscribe() as events:
            with run.hold("a"):
                pass
            run.edit(lambda edit: edit.add(Node("b", "b")))
            seen = [await anext(events) for _ in range(2)]
    assert [type(event) for event in seen] == [GraphSnapshot, GraphEdited]


async def test_subscriber_learns_which_nodes_wait_again_because_of_a_retry(autojump_clock: MockClock) -> None:
    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, chain("a", "b", "c")) as run,
        run.subscribe() as events,
    ):
        await tasks.wait_running("a")
        run.cancel("b")
        run.retry("b")
        seen = [await anext(events) for _ in range(6)]
    assert seen[2:] == [
        NodeEnded("b", NodeState.CANCELLED, "it was cancelled"),
        NodeSkipped("c", "edge-2"),
        NodeWaiting("c"),
        NodeWaiting("b"),
    ]


async def test_snapshot_continues_in_another_run_and_what_ran_is_lost(autojump_clock: MockClock) -> None:
    graph = Graph(nodes("a", "b", "c", "d"), [Edge("a", "c"), Edge("b", "d")])
    async with open_tasks() as tasks:
        async with open_graph(tasks.constellation, graph) as run:
            await tasks.complete("a", result=7)
            await tasks.wait_running("b", "c")
            snapshot = run.snapshot()
        async with open_graph(tasks.constellation, snapshot) as run:
            assert states(run) == {"a": "completed", "b": "lost", "c": "lost", "d": "skipped"}
            run.retry("b")
            await tasks.complete("b", "d")
            result = await run.wait()
    assert result.results["a"].result == 7
