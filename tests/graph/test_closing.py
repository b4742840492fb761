"""Graphs whose block, constellation or device ends before they do, and several graphs on one constellation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.errors import ConnectionLost, PlannerFailed
from galaxy_trio.graph import Edge, Graph, GraphState, Node, NodeState, When, open_graph

from .support.sessions import open_tasks
from .test_run import chain, nodes, states

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from galaxy_trio.errors import GraphError
    from galaxy_trio.graph import Change, GraphRun, GraphSnapshot, NodeEnded

    from .support.sessions import Tasks


async def test_wait_outside_the_block_raises_when_the_block_ends(autojump_clock: MockClock) -> None:
    raised: list[str] = []

    async def wait(run: GraphRun) -> None:
        with pytest.raises(trio.ClosedResourceError, match="the graph was closed") as caught:
            await run.wait()
        raised.append(str(caught.value))

    async with open_tasks() as tasks, trio.open_nursery() as nursery:
        async with open_graph(tasks.constellation, chain("a", "b")) as run:
            nursery.start_soon(wait, run)
            await tasks.wait_running("a")
    assert len(raised) == 1


CALLS: list[Callable[[GraphRun], object]] = [
    lambda run: run.edit(lambda edit: edit.add(Node("b", "b"))),
    lambda run: run.cancel(),
    lambda run: run.cancel("a"),
    lambda run: run.retry("a"),
    lambda run: run.hold("a").__enter__(),
]


@pytest.mark.parametrize("call", CALLS)
async def test_graph_does_not_change_after_its_block(
    call: Callable[[GraphRun], object], autojump_clock: MockClock
) -> None:
    async with open_tasks() as tasks:
        async with open_graph(tasks.constellation, Graph(nodes("a"))) as run:
            await tasks.fail("a")
            await run.wait()
        before = run.snapshot()
        with pytest.raises(trio.ClosedResourceError, match="the graph was closed"):
            call(run)
        assert run.snapshot() == before
        assert (await run.wait()).state is GraphState.FAILED
        async with run.subscribe() as events:
            assert [event async for event in events] == [before]


async def test_hold_may_outlast_the_block(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks:
        async with open_graph(tasks.constellation, Graph(nodes("a"))) as run:
            hold = run.hold("a")
            hold.__enter__()
        hold.__exit__(None, None, None)
        assert states(run) == {"a": "ready"}


async def test_cancelled_block_stops_everything_and_starts_nothing(autojump_clock: MockClock) -> None:
    graph = Graph(nodes("a", "b"), [Edge("a", "b", When.END)])
    async with open_tasks() as tasks:
        with trio.CancelScope() as scope:
            async with open_graph(tasks.constellation, graph):
                await tasks.wait_running("a")
                scope.cancel()
        assert (tasks.started, tasks.stopped) == (["a"], ["a"])
        assert tasks.constellation.statistics().running == 0


async def test_graph_ends_when_its_constellation_closes(autojump_clock: MockClock) -> None:
    graph = Graph([*(Node(name, name, device="d1") for name in "ab"), Node("c", "c", retries=3)], [Edge("a", "c")])
    closed = trio.Event()

    async with trio.open_nursery() as nursery:

        async def keep_open(task_status: trio.TaskStatus[object]) -> None:
            async with open_tasks("d1") as tasks:
                task_status.started(tasks)
                await closed.wait()

        tasks = await nursery.start(keep_open)
        async with open_graph(tasks.constellation, graph) as run:
            await trio.testing.wait_all_tasks_blocked()
            closed.set()
            with trio.fail_after(30):
                result = await run.wait()
    assert result.state is GraphState.FAILED
    running, waiting = sorted("ab", key=lambda name: result.results[name].state, reverse=True)
    assert result.results[running].state is NodeState.LOST
    assert (result.results[waiting].state, result.results[waiting].error) == (
        NodeState.FAILED,
        "the constellation was closed",
    )
    assert result.results["c"].state is NodeState.SKIPPED


async def run_other_task(tasks: Tasks) -> None:
    with pytest.raises(ConnectionLost):
        await tasks.constellation.run_task("other")


async def test_node_that_waits_for_a_device_that_is_removed_fails_and_so_does_one_that_no_other_fits(
    autojump_clock: MockClock,
) -> None:
    graph = Graph([Node("its", "its", device="d1"), Node("any", "any"), Node("os", "os", os="linux")])
    async with open_tasks("d1") as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(run_other_task, tasks)
        await tasks.wait_running("other")
        async with open_graph(tasks.constellation, graph) as run:
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(partial(tasks.constellation.remove_device, "d1", wait=False))
            result = await run.wait()
    assert {node.state for node in result.results.values()} == {NodeState.FAILED}
    assert "device 'd1' was removed" in str(result.results["its"].error)


async def test_two_graphs_share_a_constellation(autojump_clock: MockClock) -> None:
    """A queue that is full for both of them delays both, and loses nothing."""

    async def run_graph(prefix: str) -> None:
        graph = Graph([Node(f"{prefix}{number}", f"{prefix}{number}", device="d1") for number in range(5)])
        async with open_graph(tasks.constellation, graph, max_concurrent=3) as run:
            assert (await run.wait()).state is GraphState.COMPLETED

    async with open_tasks("d1", max_queued=2) as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(run_graph, "a")
        nursery.start_soon(run_graph, "b")
        for _ in range(10):
            await trio.sleep(20)
            await tasks.complete(*tasks.running)
    assert sorted(tasks.started) == [f"{prefix}{number}" for prefix in "ab" for number in range(5)]


# Cancelling a graph that has a planner.


async def test_cancelled_graph_is_over_without_its_planner(autojump_clock: MockClock) -> None:
    calls: list[list[str]] = []

    async def plan(ends: list[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> None:
        del snapshot, error
        calls.append([end.node_id for end in ends])
        await trio.sleep_forever()

    graph = Graph(nodes("a", "b", "c", "d"), [Edge("a", "d", When.END), Edge("b", "d")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph, planner=plan) as run:  # type: ignore[arg-type]
        await tasks.complete("a")
        await tasks.complete("b")
        assert calls == [["a"]]
        run.cancel()
        with trio.fail_after(10):
            result = await run.wait()
        assert (result.state, calls, tasks.stopped) == (GraphState.CANCELLED, [["a"]], ["c"])
        assert run.snapshot().decisions == {"edge-1": True, "edge-2": True}
        run.edit(lambda edit: edit.add(Node("e", "e"), after="a"))
        await tasks.complete("e")
        assert calls == [["a"], ["e"]]


async def test_edit_of_a_planner_that_returns_after_its_graph_was_cancelled_is_dropped(
    autojump_clock: MockClock,
) -> None:
    go_on = trio.Event()

    async def plan(*_: object) -> Change:
        with trio.CancelScope(shield=True):
            await go_on.wait()
        return lambda edit: edit.add(Node("more", "more"))

    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a")), planner=plan) as run:
        await tasks.complete("a")
        run.cancel()
        go_on.set()
        result = await run.wait()
    assert (result.state, set(result.results)) == (GraphState.CANCELLED, {"a"})


async def test_edit_of_a_planner_that_returns_after_its_time_is_dropped(autojump_clock: MockClock) -> None:
    async def plan(*_: object) -> Change:
        with trio.CancelScope(shield=True):
            await trio.sleep(31)
        return lambda edit: edit.add(Node("more", "more"))

    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, Graph(nodes("a")), planner=plan, planner_timeout=30) as run,
    ):
        await tasks.complete("a")
        with pytest.raises(PlannerFailed, match="within 30 s"):
            await run.wait()
        assert set((await run.wait()).results) == {"a"}


async def test_planner_of_a_graph_inside_a_planner_does_not_wait_for_the_outer_graph(
    autojump_clock: MockClock,
) -> None:
    inside: list[str] = []

    async def inner_plan(*_: object) -> None:
        with pytest.raises(RuntimeError, match="a planner cannot wait for its own graph"):
            await outer.wait()
        inside.append("refused")

    async def plan(*_: object) -> None:
        async with open_graph(tasks.constellation, Graph(nodes("inner")), planner=inner_plan) as inner:
            await tasks.complete("inner")
            assert (await inner.wait()).state is GraphState.COMPLETED

    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a")), planner=plan) as outer:
        await tasks.complete("a")
        await outer.wait()
    assert inside == ["refused"]
