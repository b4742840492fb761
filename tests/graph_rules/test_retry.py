"""Nodes that are run again by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph import Edge, Node, When

from .support.running import plan, refused

if TYPE_CHECKING:
    from .support.running import RunningGraph


async def test_retried_node_runs_again_and_what_was_skipped_through_it_waits(graph: RunningGraph) -> None:
    await graph.start(plan("abc", "ab", "bc"))
    await graph.fail("a")
    await graph.end("failed")
    await graph.retry("a")
    view = await graph.reach(a="running", b="waiting", c="waiting")
    assert (view.state, view.snapshot.node("a").attempt) == ("running", 2)
    await graph.complete("a", "b", "c")
    await graph.end("completed")


async def test_lost_and_cancelled_nodes_can_be_retried_as_well(graph: RunningGraph) -> None:
    await graph.start(plan("abcd", "ac", "bd"))
    await graph.lose("a")
    await graph.tasks.wait_begun("b")
    await graph.cancel("b")
    await graph.reach(a="lost", b="cancelled", c="skipped", d="skipped")
    await graph.retry("a")
    await graph.retry("b")
    await graph.complete("a", "b", "c", "d")
    await graph.end("completed")


async def test_retry_reopens_a_graph_that_was_cancelled(graph: RunningGraph) -> None:
    await graph.start(plan("ab", "ab"))
    await graph.tasks.wait_begun("a")
    await graph.cancel()
    await graph.end("cancelled")
    await graph.retry("a")
    view = await graph.reach(a="running", b="cancelled")
    assert view.state == "running"
    await graph.complete("a")
    await graph.end("partially failed")


async def test_retry_leaves_what_has_run_and_what_another_failure_skipped(graph: RunningGraph) -> None:
    edges: list[str | Edge] = ["as", "bs", Edge("a", "r", When.FAILURE), "su", Edge("a", "u", When.END)]
    await graph.start(plan("abrsu", *edges))
    await graph.fail("a", "b")
    await graph.complete("r")
    await graph.reach(a="failed", b="failed", r="completed", s="skipped", u="skipped")
    await graph.retry("a")
    await graph.reach(a="running", b="failed", r="completed", s="skipped", u="skipped")
    await graph.retry("b")
    await graph.reach(a="running", b="running", r="completed", s="waiting", u="waiting")
    await graph.complete("a", "b", "s", "u")
    await graph.end("completed")
    assert sorted(graph.tasks.started) == list("aabbrsu")


async def test_retry_leaves_what_runs_and_lets_what_is_ready_wait_again(graph: RunningGraph) -> None:
    nodes = [Node("a", "a"), Node("b", "b", device="d1"), Node("c", "c", device="d1")]
    await graph.start(plan(nodes, Edge("a", "b", When.END), Edge("a", "c", When.END)))
    await graph.fail("a")
    await graph.reach(a="failed", b="running", c="ready")
    await graph.retry("a")
    await graph.reach(a="running", b="running", c="waiting")
    await graph.complete("a")
    await graph.reach(a="completed", b="running", c="ready")
    await graph.complete("b", "c")
    await graph.end("completed")


async def test_node_that_is_ready_when_one_before_it_ends_again_shows_the_new_result(graph: RunningGraph) -> None:
    await graph.start(plan([Node("a", "a", device="d2"), Node("b", "b", device="d1")], Edge("a", "b", When.END)))
    await graph.fail("a", why="first")
    await graph.tasks.wait_begun("b")
    assert '"error": "first"' in graph.tasks.texts["b"]
    await graph.edit(add=(Node("x", "x", device="d1"),))
    await graph.reach(a="failed", b="running", x="ready")
    await graph.retry("a")
    await graph.fail("b")
    await graph.reach(a="running", b="failed", x="running")
    # It ran when a was retried, so the edge to it stays decided.
    await graph.retry("b")
    await graph.reach(a="running", b="ready", x="running")
    await graph.complete("a", result="second")
    await graph.reach(a="completed", b="ready", x="running")
    await graph.complete("x", "b")
    await graph.end("completed")
    assert '"result": "second"' in graph.tasks.texts["b"]


async def test_node_that_runs_or_did_not_fail_is_not_retried(graph: RunningGraph) -> None:
    await graph.start(plan("abcde", "cd", "be"))
    await graph.complete("a")
    await graph.fail("c")
    await graph.reach(a="completed", b="running", c="failed", d="skipped", e="waiting")
    for name, state in (("a", "completed"), ("b", "running"), ("d", "skipped"), ("e", "waiting")):
        with refused(f"node {name!r} is {state}: only a node that failed, was lost or was cancelled can be retried"):
            await graph.retry(name)
    with refused("there is no node 'x' in this graph"):
        await graph.retry("x")


async def test_node_one_of_whose_edges_does_not_hold_is_not_retried(graph: RunningGraph) -> None:
    await graph.start(plan("ab", "ab"))
    await graph.tasks.wait_begun("a")
    await graph.cancel("b")
    await graph.fail("a")
    await graph.reach(a="failed", b="cancelled")
    with refused("node 'b' cannot run: one of its edges does not hold"):
        await graph.retry("b")
    await graph.retry("a")
    await graph.retry("b")
    await graph.reach(a="running", b="waiting")
