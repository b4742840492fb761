"""What is done so that large graphs hold no other task up: opened in steps, snapshots without checks, states without copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from galaxy_trio.graph import Edge, Graph, GraphSnapshot, Node, NodeState, open_graph

from .support.sessions import open_tasks
from .test_run import nodes

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.graph import Change

LARGE = Graph(
    [Node("first", "first"), *(Node(f"n{number}", "work") for number in range(3_000))],
    [Edge("first", f"n{number}") for number in range(3_000)],
)


async def test_other_tasks_have_turns_while_a_large_graph_is_opened(autojump_clock: MockClock) -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_tasks() as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        async with open_graph(tasks.constellation, LARGE) as run:
            assert turns >= 5
            assert run.states["first"] is NodeState.READY
        nursery.cancel_scope.cancel()


async def test_graph_that_is_cancelled_while_it_is_opened_starts_nothing(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_graph(tasks.constellation, LARGE):
                raise AssertionError("the graph was opened")
        await trio.sleep(10)
        assert (scope.cancelled_caught, tasks.started) == (True, [])


async def test_graph_whose_nodes_waited_together_keeps_few_tasks(autojump_clock: MockClock) -> None:
    """At most 100 of them wait for other nodes."""
    device_ids = ["d0", "d1", "d2"]
    graph = Graph([Node(f"n{number}", "work", device=device_ids[number % 3]) for number in range(300)])
    async with open_tasks(*device_ids) as tasks, open_graph(tasks.constellation, graph) as run:
        await trio.sleep(10)
        waiting = trio.lowlevel.current_statistics().tasks_living
        run.cancel()
        await run.wait()
        await trio.sleep(10)
        assert trio.lowlevel.current_statistics().tasks_living <= waiting - 200
        run.edit(lambda edit: edit.add(Node("last", "last")))
        await tasks.complete("last")


async def test_states_are_those_at_the_time_when_they_are_read(autojump_clock: MockClock) -> None:
    graph = Graph(nodes("a", "b"), [Edge("a", "b")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        states = run.states
        assert dict(states) == {"a": NodeState.READY, "b": NodeState.WAITING}
        await tasks.complete("a")
        assert (states["a"], len(states), "c" in states) == (NodeState.COMPLETED, 2, False)
        run.edit(lambda edit: edit.add(Node("c", "c")))
        assert states["c"] is NodeState.READY
        assert repr(states) == repr(dict(run.states))


async def test_snapshot_that_is_not_checked_equals_one_that_is(autojump_clock: MockClock) -> None:
    given = Graph(nodes("a", "b", "c"), [Edge("a", "b", id="edge-2"), Edge("b", "c")], name="plan", metadata={"x": 1})
    async with open_tasks() as tasks, open_graph(tasks.constellation, given) as run:
        await tasks.complete("a")
        first = run.snapshot()
        assert first.graph is run.snapshot().graph
        changes: list[Change] = [
            lambda edit: edit.connect(Edge("a", "c")),
            lambda edit: edit.replace(Node("c", "other")),
            lambda edit: edit.add(Node("d", "d")),
            lambda edit: edit.disconnect("a", "c"),
            lambda edit: edit.remove("d"),
        ]
        for change in changes:
            run.edit(change)
            now = run.snapshot()
            assert now != first
            graph = Graph(now.graph.nodes, now.graph.edges, name="plan", metadata={"x": 1})
            assert now == GraphSnapshot(graph, now.version, now.nodes, now.decisions)
            assert Graph(now.graph.nodes, now.graph.edges)._size == now.graph._size
            first = now
        assert [edge.id for edge in first.graph.edges] == ["edge-2", "edge-3"]


async def test_ended_node_that_is_retried_is_known_as_it_is_then(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a"))) as run:
        await tasks.fail("a", why="no paper")
        assert (run.snapshot().node("a").state, run.snapshot().node("a").error) == (NodeState.FAILED, "no paper")
        run.retry("a")
        await tasks.wait_running("a")
        assert (run.snapshot().node("a").state, run.snapshot().node("a").error) == (NodeState.RUNNING, None)
        await tasks.complete("a", result=[1])
        assert run.snapshot().node("a").result == [1]
