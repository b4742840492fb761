"""Planners: called with the ends of nodes, one call at a time; their edits take effect before the edges are decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.errors import GraphError, NoSuchNode, NotEditable, PlannerFailed
from galaxy_trio.graph import Edge, Graph, GraphState, Node, NodeEnded, open_graph

from .support.sessions import open_tasks
from .test_run import chain, nodes, states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock

    from galaxy_trio.graph import GraphEdit, GraphRun, GraphSnapshot

    Change = Callable[[GraphEdit], None]


async def test_planners_edit_takes_effect_before_the_next_node_starts(autojump_clock: MockClock) -> None:
    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> Change | None:
        del snapshot, error
        await trio.sleep(5)
        if ends[0].node_id != "a":
            return None

        def change(edit: GraphEdit) -> None:
            edit.add(Node("check", "check"), after="a")
            edit.connect(Edge("check", "b"))

        return change

    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b"), planner=plan) as run:
        await tasks.complete("a", "check", "b")
        assert (await run.wait()).state is GraphState.COMPLETED
        assert tasks.started == ["a", "check", "b"]


async def test_other_branches_go_on_while_the_planner_thinks_and_their_ends_come_together(
    autojump_clock: MockClock,
) -> None:
    calls: list[set[str]] = []
    think = trio.Event()

    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> None:
        del snapshot, error
        calls.append({end.node_id for end in ends})
        await think.wait()

    graph = Graph(nodes("a", "a2", "b", "c"), [Edge("a", "a2")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph, planner=plan) as run:
        await tasks.complete("a")
        assert states(run)["a2"] == "waiting"
        await tasks.complete("b", "c")
        assert calls == [{"a"}]
        assert run.statistics().planning
        think.set()
        await tasks.complete("a2")
        await run.wait()
        assert calls == [{"a"}, {"b", "c"}, {"a2"}]


async def test_refused_edit_goes_back_to_the_planner_three_times_and_the_graph_goes_on(
    autojump_clock: MockClock,
) -> None:
    errors: list[str | None] = []

    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> Change:
        del ends, snapshot
        errors.append(None if error is None else str(error))
        await trio.lowlevel.checkpoint()
        return lambda edit: edit.remove("nothing")

    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b"), planner=plan) as run:
        await tasks.complete("a")
        with pytest.raises(PlannerFailed, match="refused 4 times, the last one because there is no node 'nothing'"):
            await run.wait()
        assert errors == [None, *["there is no node 'nothing' in this graph"] * 3]
        await tasks.wait_running("b")


async def test_planner_that_takes_too_long_is_cancelled_and_the_graph_goes_on(autojump_clock: MockClock) -> None:
    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> None:
        del ends, snapshot, error
        await trio.sleep_forever()

    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, chain("a", "b"), planner=plan, planner_timeout=30) as run,
    ):
        await tasks.complete("a")
        with pytest.raises(PlannerFailed, match="within 30 s"):
            await run.wait()
        await tasks.complete("b")


async def test_failure_of_the_planner_is_raised_although_a_later_call_succeeds(autojump_clock: MockClock) -> None:
    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> None:
        del snapshot, error
        if ends[0].node_id == "a":
            await trio.sleep_forever()

    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, chain("a", "b"), planner=plan, planner_timeout=30) as run,
    ):
        await tasks.complete("a", "b")
        with pytest.raises(PlannerFailed, match="within 30 s"):
            await run.wait()
        assert (await run.wait()).state is GraphState.COMPLETED


async def test_exception_of_the_planner_comes_out_of_the_block(autojump_clock: MockClock) -> None:
    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError(ends, snapshot, error)

    with pytest.raises(ZeroDivisionError):
        async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b"), planner=plan) as run:
            await tasks.complete("a")
            await run.wait()


async def test_wait_includes_a_planner_that_thinks_and_raises_inside_of_it(autojump_clock: MockClock) -> None:
    inside: list[str] = []
    runs: list[GraphRun] = []

    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> Change | None:
        del snapshot, error
        try:
            await runs[0].wait()
        except RuntimeError as wrong:
            inside.append(str(wrong))
        await trio.sleep(10)
        return (lambda edit: edit.add(Node("b", "b"))) if ends[0].node_id == "a" else None

    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a")), planner=plan) as run:
        runs.append(run)
        await tasks.complete("a", "b")
        assert set((await run.wait()).results) == {"a", "b"}
    assert inside == ["a planner cannot wait for its own graph: return an edit, or None"] * 2


async def test_node_whose_end_the_planner_thinks_about_is_not_retried(autojump_clock: MockClock) -> None:
    think = trio.Event()

    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> None:
        del ends, snapshot, error
        await think.wait()

    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a", "b")), planner=plan) as run:
        await tasks.fail("a")
        # Its end is for the planner's next call.
        await tasks.fail("b")
        for name in "ab":
            with pytest.raises(NotEditable, match=f"the planner is thinking about the end of node '{name}'"):
                run.retry(name)
        with pytest.raises(NoSuchNode, match="no node 'x'"):
            run.retry("x")
        think.set()
        await run.wait()
        run.retry("a")
        await tasks.complete("a")
        assert (await run.wait()).state is GraphState.PARTIALLY_FAILED
