"""Cancelling graphs and nodes, in each state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph import Edge, Node, When

from .support.running import plan, refused

if TYPE_CHECKING:
    from .support.running import RunningGraph


async def test_cancelled_graph_stops_what_runs_and_starts_nothing_more_not_even_what_always_runs(
    graph: RunningGraph,
) -> None:
    nodes = [Node(name, name, device="d1" if name in "bc" else "d2", retries=5) for name in "abcde"]
    await graph.start(plan(nodes, Edge("b", "d", When.END), Edge("c", "e", When.END)))
    await graph.complete("a")
    await graph.reach(a="completed", b="running", c="ready", d="waiting", e="waiting")
    await graph.tasks.wait_begun("b")
    await graph.cancel()
    view = await graph.end("cancelled")
    assert view.states == {"a": "completed", "b": "cancelled", "c": "cancelled", "d": "cancelled", "e": "cancelled"}
    assert {view.snapshot.node(name).error for name in "bcde"} == {"it was cancelled"}
    assert (sorted(graph.tasks.started), graph.tasks.stopped) == (["a", "b"], ["b"])


async def test_graph_that_has_ended_stays_as_it_ended_when_it_is_cancelled(graph: RunningGraph) -> None:
    await graph.start(plan("a"))
    await graph.complete("a")
    await graph.end("completed")
    await graph.cancel()
    await graph.end("completed")


async def test_node_that_runs_is_stopped_and_the_others_go_on(graph: RunningGraph) -> None:
    nodes = [Node("a", "a", retries=5), *plan("bcd").nodes]
    await graph.start(plan(nodes, "ab", Edge("a", "c", When.END)))
    await graph.tasks.wait_running("a", "d")
    await graph.cancel("a")
    await graph.reach(a="cancelled", b="skipped", c="running", d="running")
    await graph.complete("c", "d")
    await graph.end("partially failed")
    assert graph.tasks.stopped == ["a"]


async def test_node_that_has_not_started_never_does_and_what_follows_it_always_runs(graph: RunningGraph) -> None:
    nodes = [Node(name, name, device="d1" if name in "ab" else None) for name in "abcdef"]
    await graph.start(plan(nodes, "ac", Edge("b", "d", When.END), Edge("c", "e", When.END), "cf"))
    await graph.reach(a="running", b="ready", c="waiting", d="waiting", e="waiting", f="waiting")
    await graph.cancel("b")
    await graph.cancel("c")
    view = await graph.reach(a="running", b="cancelled", c="cancelled", d="running", e="running", f="skipped")
    assert {view.snapshot.node(name).error for name in "bc"} == {"it was cancelled"}
    assert "it was cancelled" in graph.tasks.texts["d"]
    await graph.complete("a", "d", "e")
    await graph.end("partially failed")


async def test_node_that_has_ended_stays_as_it_ended_when_it_is_cancelled(graph: RunningGraph) -> None:
    await graph.start(plan("abcd", "cd"))
    await graph.complete("a")
    await graph.fail("c")
    await graph.reach(a="completed", b="running", c="failed", d="skipped")
    for name in "acd":
        await graph.cancel(name)
    await graph.reach(a="completed", b="running", c="failed", d="skipped")
    with refused("there is no node 'x' in this graph"):
        await graph.cancel("x")
