"""Edits, holds and retries of graphs that run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.errors import CycleError, GraphError, NoSuchNode, NotEditable, VersionConflict
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


async def test_refused_edit_changes_nothing(autojump_clock: MockClock) -> None:
    def edit(change: GraphEdit) -> None:
        change.add(Node("d", "d"))
        change.remove("c")
        change.connect(Edge("d", "a"))

    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b", "c")) as run:
        await tasks.wait_running("a")
        before = run.snapshot()
        with pytest.raises(NotEditable, match="node 'a' is running: only nodes that have not started can change"):
            run.edit(edit)
        assert run.snapshot() == before


async def test_edit_that_would_form_a_cycle_names_its_nodes(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b", "c", "d")) as run:
        with pytest.raises(CycleError, match=r"cycle: 'b' -> 'c' -> 'd' -> 'b'|'c' -> 'd' -> 'b'|'d' -> 'b'") as caught:
            run.edit(lambda edit: edit.connect(Edge("d", "b")))
        assert set(caught.value.nodes) == {"b", "c", "d"}


async def test_edit_of_an_old_version_is_refused_with_the_current_one(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a"))) as run:
        assert run.edit(lambda edit: edit.add(Node("b", "b"))) == 1
        with pytest.raises(VersionConflict) as caught:
            run.edit(lambda edit: edit.add(Node("c", "c")), version=0)
        assert caught.value.version == 1
        assert run.edit(lambda edit: edit.add(Node("c", "c")), version=1) == 2
        assert run.edit(lambda _: None) == 2
        assert run.version == 2


async def test_edit_names_what_is_not_there(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b")) as run:
        with pytest.raises(NoSuchNode, match="no node 'x'"):
            run.edit(lambda edit: edit.remove("x"))
        with pytest.raises(NoSuchNode, match="no node 'x'"):
            run.edit(lambda edit: edit.add(Node("c", "c"), after="x"))
        with pytest.raises(GraphError, match="there is no edge 'b' -> 'b'"):
            run.edit(lambda edit: edit.disconnect("b", "b"))
        with pytest.raises(GraphError, match="there is a node 'b' already"):
            run.edit(lambda edit: edit.add(Node("b", "b")))


async def test_node_that_waits_for_a_device_is_replaced_and_runs_as_the_new_one(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", device="d1"), Node("b", "old", device="d1")])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await trio.testing.wait_all_tasks_blocked()
        [running] = tasks.running
        waiting = "b" if running == "a" else "a"
        run.edit(lambda edit: edit.replace(Node(waiting, "new", device="d1")))
        await tasks.complete(running, "new")
        result = await run.wait()
    assert result.state is GraphState.COMPLETED
    assert tasks.started == [running, "new"]


async def test_removed_node_leaves_the_devices_queue_and_what_waited_for_it_goes_on(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", device="d1"), Node("b", "b", device="d1"), Node("c", "c")], [Edge("b", "c")])
    async with open_tasks("d1", "d2") as tasks, open_graph(tasks.constellation, graph) as run:
        with run.hold("b"):
            await tasks.wait_running("a")
            run.edit(lambda edit: edit.remove("b"))
        await tasks.wait_running("a", "c")
        assert states(run) == {"a": "running", "c": "running"}


async def test_edge_to_a_ready_node_lets_it_wait_again(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", device="d1"), Node("b", "b", device="d1")])
    async with open_tasks("d1", "d2") as tasks, open_graph(tasks.constellation, graph) as run:
        await trio.testing.wait_all_tasks_blocked()
        [running] = tasks.running
        waiting = "b" if running == "a" else "a"

        def edit(change: GraphEdit) -> None:
            change.add(Node("first", "first", device="d2"))
            change.connect(Edge("first", waiting))

        run.edit(edit)
        await tasks.complete(running)
        assert states(run)[waiting] == "waiting"
        await tasks.complete("first", waiting)
        await run.wait()


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


async def test_retry_runs_a_failed_node_and_those_that_were_skipped_through_it(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b", "c")) as run:
        await tasks.fail("a")
        assert (await run.wait()).state is GraphState.FAILED
        run.retry("a")
        assert states(run) == {"a": "ready", "b": "waiting", "c": "waiting"}
        assert run.state is GraphState.RUNNING
        await tasks.complete("a", "b", "c")
        assert (await run.wait()).state is GraphState.COMPLETED
        with pytest.raises(NotEditable, match="node 'a' is completed"):
            run.retry("a")


async def test_added_node_reopens_a_graph_that_has_ended(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a"))) as run:
        await tasks.complete("a")
        await run.wait()
        run.edit(lambda edit: edit.add(Node("b", "b"), after="a"))
        await tasks.complete("b")
        assert set((await run.wait()).results) == {"a", "b"}


async def test_edge_from_a_node_that_has_ended_is_decided_immediately(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a", "other"))) as run:
        await tasks.fail("a")

        def edit(change: GraphEdit) -> None:
            change.add(Node("skipped", "x"), after="a")
            change.add(Node("runs", "runs"))
            change.connect(Edge("a", "runs", When.FAILURE))

        run.edit(edit)
        await tasks.wait_running("other", "runs")
        assert run.states["skipped"] is NodeState.SKIPPED


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
