"""Graphs that run on a constellation in memory."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.errors import GraphFailed
from galaxy_trio.graph import Condition, Edge, Graph, GraphState, Node, NodeState, When, open_graph

from .support.sessions import open_tasks

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.graph import GraphRun, NodeResult
    from galaxy_trio.messages import JSON


def nodes(*names: str) -> list[Node]:
    return [Node(name, name) for name in names]


def chain(*names: str) -> Graph:
    return Graph(nodes(*names), [Edge(a, b) for a, b in itertools.pairwise(names)])


def states(run: GraphRun) -> dict[str, str]:
    return {name: state.value for name, state in run.states.items()}


async def test_node_starts_when_those_before_it_have_completed(autojump_clock: MockClock) -> None:
    graph = Graph(nodes("a", "b", "c"), [Edge("a", "c"), Edge("b", "c")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.wait_running("a", "b")
        await tasks.complete("a")
        assert states(run) == {"a": "completed", "b": "running", "c": "waiting"}
        await tasks.complete("b", result=5)
        await tasks.complete("c")
        result = await run.wait()
    assert result.state is GraphState.COMPLETED
    assert result.unwrap() == {"a": None, "b": 5, "c": None}


async def test_graph_without_nodes_is_complete() -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph()) as run:
        assert (await run.wait()).state is GraphState.COMPLETED


@pytest.mark.parametrize(
    ("when", "after_success", "after_failure"),
    [
        (When.SUCCESS, "running", "skipped"),
        (When.FAILURE, "skipped", "running"),
        (When.END, "running", "running"),
        (When.CONDITION, "running", "skipped"),
    ],
)
async def test_edge_holds_for_its_kinds_of_end(
    when: When, after_success: str, after_failure: str, autojump_clock: MockClock
) -> None:
    condition = Condition("/ok", "eq", value=True) if when is When.CONDITION else None
    for fails, expected in ((False, after_success), (True, after_failure)):
        graph = Graph(nodes("a", "b"), [Edge("a", "b", when, condition=condition)])
        async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
            if fails:
                await tasks.fail("a", result={"ok": True})
            else:
                await tasks.complete("a", result={"ok": True})
            assert states(run)["b"] == expected


async def test_condition_that_is_not_met_skips_its_branch_and_the_graph_ends(autojump_clock: MockClock) -> None:
    graph = Graph(
        nodes("a", "b", "c", "always"),
        [
            Edge("a", "b", When.CONDITION, condition=lambda result: result == 1),
            Edge("b", "c"),
            Edge("c", "always", When.END),
        ],
    )
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.complete("a", result=2)
        await tasks.complete("always")
        result = await run.wait()
    assert {name: node.state for name, node in result.results.items()} == {
        "a": NodeState.COMPLETED,
        "b": NodeState.SKIPPED,
        "c": NodeState.SKIPPED,
        "always": NodeState.COMPLETED,
    }
    assert result.state is GraphState.COMPLETED


async def test_failed_node_is_retried_with_growing_waits_and_fresh_task_ids(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", retries=2, backoff=10)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        ids = set[str | None]()
        for _ in range(3):
            await tasks.wait_running("a")
            ids.add(run.snapshot().node("a").task_id)
            await tasks.fail("a")
        result = await run.wait()
    assert len(ids) == 3
    assert result.state is GraphState.FAILED
    assert (result.results["a"].attempt, result.results["a"].error) == (3, "it broke")
    with pytest.raises(GraphFailed, match="the graph is failed: node 'a' is failed: it broke"):
        result.unwrap()


async def test_lost_node_is_repeated_only_if_it_allows_that(autojump_clock: MockClock) -> None:
    graph = Graph([Node("once", "once", device="d1"), Node("twice", "twice", device="d2", retry_lost=True, retries=1)])
    async with open_tasks("d1", "d2") as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.wait_running("once", "twice")
        await tasks.fleet.kill_server()
        await tasks.fleet.start_server()
        await tasks.complete("twice")
        result = await run.wait()
    assert (result.results["once"].state, result.results["once"].attempt) == (NodeState.LOST, 1)
    assert (result.results["twice"].state, result.results["twice"].attempt) == (NodeState.COMPLETED, 2)
    assert result.state is GraphState.PARTIALLY_FAILED


async def test_timeout_of_a_node_is_a_failure(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", timeout=5), Node("b", "b")], [Edge("a", "b", When.FAILURE)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.complete("b")
        result = await run.wait()
    assert result.results["a"].state is NodeState.FAILED
    assert "within 5 s" in str(result.results["a"].error)
    assert tasks.stopped == ["a"]


async def test_cancelled_node_is_stopped_on_its_device(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b")) as run:
        await tasks.wait_running("a")
        run.cancel("a")
        result = await run.wait()
        assert tasks.stopped == ["a"]
    assert {name: node.state.value for name, node in result.results.items()} == {"a": "cancelled", "b": "skipped"}


async def test_cancelled_graph_starts_nothing_more_not_even_what_always_runs(autojump_clock: MockClock) -> None:
    graph = Graph(nodes("a", "b", "c"), [Edge("a", "b", When.END), Edge("b", "c", When.END)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.wait_running("a")
        run.cancel()
        result = await run.wait()
        assert (tasks.started, tasks.stopped) == (["a"], ["a"])
    assert result.state is GraphState.CANCELLED


async def test_end_of_the_block_stops_everything(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks:
        async with open_graph(tasks.constellation, Graph(nodes("a", "b"))):
            await tasks.wait_running("a", "b")
        assert sorted(tasks.stopped) == ["a", "b"]
        assert tasks.constellation.statistics().running == 0


async def test_node_that_is_added_starts_without_waiting_for_others(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b")) as run:
        await tasks.complete("a")
        await tasks.wait_running("b")
        run.edit(lambda edit: edit.add(Node("c", "c"), after=["a"]))
        await tasks.wait_running("b", "c")


async def test_only_as_many_nodes_run_as_allowed_the_highest_priority_first(autojump_clock: MockClock) -> None:
    graph = Graph([Node(name, name, priority=priority) for name, priority in (("low", -5), ("mid", 0), ("high", 9))])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph, max_concurrent=1) as run:
        for name in ("high", "mid", "low"):
            await tasks.wait_running(name)
            await trio.sleep(10)
            assert tasks.running == {name}
            await tasks.complete(name)
        await run.wait()


async def test_nodes_for_an_absent_device_delay_no_others(autojump_clock: MockClock) -> None:
    graph = Graph([*(Node(f"away{n}", "x", device="d1") for n in range(500)), Node("here", "here", device="d2")])
    async with open_tasks("d1", "d2") as tasks:
        await tasks.fleet.kill_device("d1")
        await trio.sleep(100)
        async with open_graph(tasks.constellation, graph, max_concurrent=2) as run:
            await tasks.complete("here")
            assert run.states["here"] is NodeState.COMPLETED


async def test_unknown_device_fails_its_node(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph([Node("a", "a", device="toaster")])) as run:
        result = await run.wait()
    assert result.results["a"].state is NodeState.FAILED
    assert "toaster" in str(result.results["a"].error)


async def test_exception_of_a_condition_comes_out_of_the_block(autojump_clock: MockClock) -> None:
    def broken(result: JSON) -> bool:
        raise ZeroDivisionError(result)

    graph = Graph(nodes("a", "b"), [Edge("a", "b", When.CONDITION, condition=broken)])
    with pytest.raises(ZeroDivisionError):
        async with open_tasks() as tasks, open_graph(tasks.constellation, graph):
            await tasks.complete("a", result=1)
            await trio.sleep_forever()


async def test_nodes_see_the_results_of_those_before_them(autojump_clock: MockClock) -> None:
    def make_request(node: Node, results: dict[str, NodeResult]) -> str:
        return f"{node.id}\n{[(name, result.result) for name, result in results.items()]}"

    graph = Graph(nodes("a", "b", "c"), [Edge("a", "c"), Edge("b", "c")])
    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, graph, make_request=make_request) as run,  # type: ignore[arg-type]
    ):
        await tasks.complete("a", "b", result="r")
        await tasks.complete("c")
        await run.wait()
    assert tasks.texts["c"] == "c\n[('a', 'r'), ('b', 'r')]"
