"""What an edit may change in each state of a graph and its nodes, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph import Condition, Edge, Node, When

from .support.running import plan

if TYPE_CHECKING:
    from .support.running import RunningGraph


async def test_added_node_starts_immediately_and_reopens_a_graph_that_has_ended(graph: RunningGraph) -> None:
    await graph.start(plan("a"))
    await graph.complete("a", result=7)
    await graph.end("completed")
    assert await graph.edit(add=plan("bc").nodes, connect=(Edge("a", "b"), Edge("b", "c"))) == 1
    view = await graph.reach(a="completed", b="running", c="waiting")
    assert (view.state, view.snapshot.version) == ("running", 1)
    await graph.complete("b", "c")
    await graph.end("completed")
    assert '"result": 7' in graph.tasks.texts["b"]


async def test_added_node_reopens_a_graph_that_was_cancelled(graph: RunningGraph) -> None:
    await graph.start(plan("a"))
    await graph.tasks.wait_begun("a")
    await graph.cancel()
    await graph.end("cancelled")
    await graph.edit(add=plan("b").nodes)
    await graph.complete("b")
    await graph.end("partially failed")


async def test_edge_from_a_node_that_has_ended_is_decided_immediately(graph: RunningGraph) -> None:
    await graph.start(plan("abx", "xb"))
    await graph.complete("a", result={"code": 7})
    await graph.fail("x")
    await graph.reach(a="completed", b="skipped", x="failed")
    edges = [
        Edge("a", "c", When.CONDITION, condition=Condition("/code", "eq", 7)),
        Edge("a", "d", When.CONDITION, condition=Condition("/code", "eq", 8)),
        Edge("x", "e"),
        Edge("x", "f", When.FAILURE),
        Edge("b", "g", When.END),
    ]
    await graph.edit(add=plan("cdefg").nodes, connect=tuple(edges))
    await graph.reach(
        a="completed", b="skipped", x="failed", c="running", d="skipped", e="skipped", f="running", g="running"
    )


async def test_edge_skips_a_node_that_waited_for_others(graph: RunningGraph) -> None:
    await graph.start(plan("abcd", "bc", "cd"))
    await graph.fail("a")
    await graph.reach(a="failed", b="running", c="waiting", d="waiting")
    await graph.edit(connect=(Edge("a", "c"),))
    await graph.reach(a="failed", b="running", c="skipped", d="skipped")


async def test_replaced_node_keeps_its_edges_and_runs_as_the_new_one(graph: RunningGraph) -> None:
    nodes = [Node(name, name, device="d1") for name in "abc"]
    await graph.start(plan(nodes, "ac"))
    await graph.reach(a="running", b="ready", c="waiting")
    await graph.edit(replace=(Node("b", "new b", device="d1"), Node("c", "new c", device="d2")))
    await graph.reach(a="running", b="ready", c="waiting")
    await graph.complete("a", "new b", "new c")
    await graph.end("completed")
    assert sorted(graph.tasks.started) == ["a", "new b", "new c"]


async def test_replaced_node_may_go_to_another_device_immediately(graph: RunningGraph) -> None:
    await graph.start(plan([Node("a", "a", device="d1"), Node("b", "b", device="d1")]))
    await graph.reach(a="running", b="ready")
    await graph.edit(replace=(Node("b", "b", device="d2"),))
    view = await graph.reach(a="running", b="running")
    assert view.snapshot.node("b").device_id == "d2"


async def test_removed_node_never_runs_and_what_waited_for_it_does_not_wait_any_more(graph: RunningGraph) -> None:
    nodes = [Node("a", "a", device="d1"), Node("b", "b", device="d1"), *plan("cde").nodes]
    await graph.start(plan(nodes, "ac", "bd", "ce"))
    await graph.reach(a="running", b="ready", c="waiting", d="waiting", e="waiting")
    await graph.edit(remove=("b", "c"))
    await graph.reach(a="running", d="running", e="running")
    await graph.complete("a", "d", "e")
    await graph.end("completed")
    assert sorted(graph.tasks.started) == ["a", "d", "e"]


async def test_graph_ends_when_all_that_has_not_ended_is_removed(graph: RunningGraph) -> None:
    await graph.devices.leave("d1")
    await graph.start(plan([Node("a", "a", device="d1"), *plan("bc").nodes], "ab"))
    await graph.complete("c")
    await graph.reach(a="ready", b="waiting", c="completed")
    await graph.edit(remove=("a", "b"))
    assert (await graph.end("completed")).states == {"c": "completed"}


async def test_new_edge_lets_a_ready_node_wait_again(graph: RunningGraph) -> None:
    nodes = [Node("a", "a", device="d1"), Node("b", "b", device="d1"), Node("c", "c", device="d2")]
    await graph.start(plan(nodes))
    await graph.reach(a="running", b="ready", c="running")
    await graph.edit(connect=(Edge("c", "b"),))
    await graph.complete("a")
    await graph.reach(a="completed", b="waiting", c="running")
    await graph.complete("c", result="late")
    await graph.complete("b")
    await graph.end("completed")
    assert '"result": "late"' in graph.tasks.texts["b"]


async def test_removed_edges_are_awaited_no_more(graph: RunningGraph) -> None:
    await graph.start(plan("abcx", "ax", Edge("a", "x", When.END), "bx", "cx"))
    await graph.complete("b")
    await graph.reach(a="running", b="completed", c="running", x="waiting")
    # All edges between two nodes go together; one that holds makes no difference.
    await graph.edit(disconnect=(("a", "x"), ("b", "x")))
    await graph.reach(a="running", b="completed", c="running", x="waiting")
    await graph.edit(disconnect=(("c", "x"),))
    await graph.reach(a="running", b="completed", c="running", x="running")


async def test_text_of_a_ready_node_follows_the_edges_to_it(graph: RunningGraph) -> None:
    nodes = [Node("a", "a", device="d1"), *(Node(name, name, device="d2") for name in "xb")]
    await graph.start(plan(nodes, "ab"))
    await graph.complete("a", result="of a")
    await graph.reach(a="completed", x="running", b="ready")
    await graph.edit(disconnect=(("a", "b"),))
    await graph.complete("x", "b")
    await graph.end("completed")
    assert graph.tasks.texts["b"] == "b"


async def test_edit_may_turn_an_edge_around(graph: RunningGraph) -> None:
    nodes = [Node("x", "x", device="d1"), Node("a", "a", device="d1"), Node("b", "b")]
    await graph.start(plan(nodes, "ab"))
    await graph.reach(x="running", a="ready", b="waiting")
    await graph.edit(disconnect=(("a", "b"),), connect=(Edge("b", "a"),))
    await graph.reach(x="running", a="waiting", b="running")


async def test_node_that_is_removed_and_added_by_one_edit_has_only_its_new_edges(graph: RunningGraph) -> None:
    nodes = [Node("x", "x", device="d1"), Node("a", "a", device="d1"), *plan("bc").nodes]
    await graph.start(plan(nodes, "ab", "bc"))
    await graph.reach(x="running", a="ready", b="waiting", c="waiting")
    await graph.edit(remove=("b",), add=(Node("b", "new"),), connect=(Edge("x", "c"),))
    view = await graph.reach(x="running", a="ready", b="running", c="waiting")
    assert {(edge.source, edge.target) for edge in view.snapshot.graph.edges} == {("x", "c")}
    await graph.complete("new", "x", "a", "c")
    await graph.end("completed")


async def test_only_edits_that_change_something_count(graph: RunningGraph) -> None:
    await graph.start(plan("ab", "ab"))
    assert await graph.edit() == 0
    assert await graph.edit(add=plan("c").nodes, version=0) == 1
    assert await graph.edit(version=1) == 1
    assert await graph.edit(connect=(Edge("a", "b", When.END),), version=1) == 2
    assert (await graph.look()).snapshot.version == 2
