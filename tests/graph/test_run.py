"""Graphs that run on a constellation in memory."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.graph import Edge, Graph, Node, NodeState, When, open_graph

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


async def test_end_of_the_block_stops_everything(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks:
        async with open_graph(tasks.constellation, Graph(nodes("a", "b"))):
            await tasks.wait_running("a", "b")
        assert sorted(tasks.stopped) == ["a", "b"]
        assert tasks.constellation.statistics().running == 0


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
