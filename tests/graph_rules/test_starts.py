"""When nodes start, on which devices, in which order, and with which texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph import Edge, Graph, Node, When

from .support.running import plan

if TYPE_CHECKING:
    from .support.running import RunningGraph


async def test_node_starts_when_all_edges_to_it_hold(graph: RunningGraph) -> None:
    await graph.start(plan("abc", "ac", "bc"))
    await graph.reach(a="running", b="running", c="waiting")
    await graph.complete("a")
    await graph.reach(a="completed", b="running", c="waiting")
    await graph.complete("b")
    await graph.reach(a="completed", b="completed", c="running")
    await graph.complete("c")
    await graph.end("completed")
    assert graph.tasks.started[2:] == ["c"]


async def test_edges_between_the_same_nodes_are_counted_one_by_one(graph: RunningGraph) -> None:
    await graph.start(plan("abc", "ac", Edge("a", "c", When.END), "bc"))
    await graph.complete("a")
    await graph.reach(a="completed", b="running", c="waiting")
    await graph.complete("b")
    await graph.reach(a="completed", b="completed", c="running")


async def test_graph_without_nodes_is_completed(graph: RunningGraph) -> None:
    await graph.start(Graph())
    await graph.end("completed")


async def test_nodes_for_a_device_run_by_priority_and_then_in_the_order_in_which_they_became_ready(
    graph: RunningGraph,
) -> None:
    priorities = {"a": 9, "b": 0, "c": 1, "d": 0, "e": -1, "f": 1}
    nodes = [Node(name, name, device="d1", priority=priority) for name, priority in priorities.items()]
    later = Node("g", "g", device="d1", priority=1)
    await graph.start(plan([*nodes, later], "ag"))
    states = dict.fromkeys("abcdefg", "ready") | {"a": "running", "g": "waiting"}
    await graph.reach(**states)
    for name in "acfgbde":
        await graph.complete(name)
    await graph.end("completed")
    assert graph.tasks.started == list("acfgbde")


async def test_node_runs_on_the_device_that_it_names_or_on_one_that_meets_its_requirements(graph: RunningGraph) -> None:
    await graph.start(
        plan(
            [
                Node("a", "a", device="d2"),
                Node("b", "b", os="windows", capabilities={"excel"}),
                Node("c", "c", os="linux"),
            ]
        )
    )
    view = await graph.reach(a="running", b="running", c="running")
    assert {name: view.snapshot.node(name).device_id for name in "abc"} == {"a": "d2", "b": "d3", "c": "d1"}


async def test_node_that_no_device_can_run_fails_without_an_attempt(graph: RunningGraph) -> None:
    nodes = [Node("a", "a", os="plan9", retries=3), Node("b", "b", device="toaster"), *plan("cd").nodes]
    await graph.start(plan(nodes, Edge("a", "c", When.FAILURE), Edge("b", "d", When.FAILURE)))
    view = await graph.reach(a="failed", b="failed", c="running", d="running")
    assert [view.snapshot.node(name).attempt for name in "ab"] == [0, 0]


async def test_node_whose_device_is_away_waits_for_it_and_delays_no_others(graph: RunningGraph) -> None:
    await graph.devices.leave("d1")
    await graph.start(plan([Node("a", "a", device="d1"), *plan("b").nodes]))
    await graph.complete("b")
    await graph.reach(a="ready", b="completed")
    await graph.devices.fleet.start_device("d1")
    await graph.complete("a")
    await graph.end("completed")


async def test_text_of_a_node_has_its_tips_and_the_ends_of_the_nodes_before_it(graph: RunningGraph) -> None:
    nodes = [*plan("ab").nodes, Node("c", "c", tips=["be quick", "knock"])]
    await graph.start(plan(nodes, "ac", Edge("b", "c", When.FAILURE)))
    await graph.complete("a", result={"sum": 3, "name": "é"})
    await graph.fail("b", why="no paper")
    await graph.complete("c")
    await graph.end("partially failed")
    assert (graph.tasks.texts["a"], graph.tasks.texts["c"]) == (
        "a",
        (
            "Task Description: c\n"
            "Tips for Completion:\n - be quick\n - knock\n"
            "Results of the tasks before it:\n"
            '{"task": "a", "state": "completed", "result": {"sum": 3, "name": "é"}, "error": null}\n'
            '{"task": "b", "state": "failed", "result": null, "error": "no paper"}'
        ),
    )
