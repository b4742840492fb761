"""Graphs as documents, in both forms; and their events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import attrs

from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphSnapshot,
    Node,
    NodeResult,
    NodeState,
    When,
    graph_document,
)

from .support.running import plan

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

    from .support.driver import Form
    from .support.running import RunningGraph

TIME = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = {"started", "ended", "execution_start_time", "execution_end_time", "execution_duration"}
FORMS: tuple[Form, ...] = ("ours", "original")
NODES = [
    Node("a", "fetch", name="A", device="d1", tips=["be quick"], metadata={"k": [1]}),
    Node("b", "list", os="windows", capabilities={"excel"}, priority=-50, timeout=60, retries=2, backoff=7),
    Node("c", "mail", device="d2", retry_lost=True),
    *plan("de").nodes,
    Node("f", "f", device="d1"),
    Node("g", "g", device="d2", retries=3, backoff=100),
]
EDGES = [
    Edge("a", "c", When.CONDITION, condition=Condition("/ok", "truthy"), metadata={"m": 1}),
    Edge("a", "d", When.FAILURE, id="named"),
    Edge("b", "e", When.END),
]
GRAPH = Graph(NODES, EDGES, name="monthly", metadata={"by": "hand"})
LAST = Node("x", "x", device="d1")


def _stable(value: JSON, key: str = "") -> JSON:
    """A document without the ids of tasks and the values of times."""
    if key in TIMES and value is not None:
        return key
    if isinstance(value, dict):
        return {
            name: _stable(member, name)
            for name, member in value.items()
            if not (name == "task_id" and len(str(member)) == 32)
        }
    return [_stable(item) for item in value] if isinstance(value, list) else value


async def test_graph_is_exported_with_all_that_is_known_of_it(graph: RunningGraph) -> None:
    await graph.start(GRAPH)
    await graph.complete("fetch", result={"ok": 1})
    await graph.tasks.wait_begun("f")
    await graph.fail("g", why="broken", result={"part": 1})
    await graph.tasks.wait_begun("mail")
    await graph.edit(add=(LAST,))
    states = {"a": "completed", "b": "running", "c": "running", "d": "skipped", "e": "waiting", "f": "running"}
    await graph.reach(**states, g="ready", x="ready")
    nodes = {
        "a": NodeResult(NodeState.COMPLETED, 1, {"ok": 1}, None, None, "d1", TIME, TIME),
        "b": NodeResult(NodeState.RUNNING, 1, None, None, None, "d3", TIME),
        "c": NodeResult(NodeState.RUNNING, 1, None, None, None, "d2", TIME),
        "d": NodeResult(NodeState.SKIPPED, ended=TIME),
        "f": NodeResult(NodeState.RUNNING, 1, None, None, None, "d1", TIME),
        "g": NodeResult(NodeState.READY, 1, {"part": 1}, "broken", None, "d2", TIME),
        "x": NodeResult(NodeState.READY),
    }
    # Edges are named when the graph is made.
    edges = [attrs.evolve(edge, id=edge_id) for edge, edge_id in zip(EDGES, ("edge-2", "named", "edge-3"), strict=True)]
    expected_graph = Graph([*NODES, LAST], edges, name="monthly", metadata={"by": "hand"})
    expected = GraphSnapshot(expected_graph, 1, nodes, {"edge-2": True, "named": False})
    for form in FORMS:
        assert _stable(await graph.driver.export(form)) == _stable(graph_document(expected, format=form))


async def test_nothing_but_the_number_of_its_attempts_is_known_of_a_node_that_is_retried(graph: RunningGraph) -> None:
    nodes = [Node("a", "a", device="d1"), Node("x", "x", device="d1"), *plan("bc").nodes]
    await graph.start(plan(nodes, Edge("a", "b", When.END), "bc"))
    await graph.fail("a", result=[1])
    await graph.fail("b", result=[2])
    await graph.reach(a="failed", x="running", b="failed", c="skipped")
    await graph.retry("a")
    await graph.retry("b")
    await graph.reach(a="ready", x="running", b="waiting", c="waiting")
    results = cast("dict[str, JSON]", _stable(await graph.driver.export("ours")))["results"]
    assert isinstance(results, dict)
    del results["x"]
    assert results == {"a": {"state": "ready", "attempt": 1}, "b": {"state": "waiting", "attempt": 1}}


async def test_exported_graph_runs_again_from_its_beginning(graph: RunningGraph) -> None:
    await graph.start(GRAPH)
    await graph.complete("fetch", result={"ok": 1})
    await graph.tasks.wait_begun("f")
    for form in FORMS:
        document = await graph.driver.export(form)
        await graph.cancel()
        await graph.end("cancelled")
        await graph.start(document)
        await graph.tasks.wait_begun("g")
        running = {"a": "running", "b": "running", "c": "waiting", "d": "waiting", "e": "waiting"}
        view = await graph.reach(**running, f="ready", g="running")
        assert [view.snapshot.node(name).attempt for name in "abc"] == [1, 1, 0]
        assert view.snapshot.version == 0
        # The edges are of the same kinds.
        await graph.fail("fetch", result={"ok": 1})
        ended = {"a": "failed", "b": "running", "c": "skipped", "d": "ready", "e": "waiting"}
        await graph.reach(**ended, f="running", g="running")


async def test_each_change_of_a_node_is_an_event_in_order(graph: RunningGraph) -> None:
    await graph.start(plan("abcd", "ab", "bc", Edge("a", "d", When.FAILURE)))
    await graph.tasks.wait_begun("a")
    async with graph.driver.watch() as watch:
        await graph.edit(add=plan("e").nodes, connect=(Edge("d", "e", When.END),))
        await graph.fail("a")
        await graph.reach(a="failed", b="skipped", c="skipped", d="running", e="waiting")
        await graph.retry("a")
        await graph.complete("d", "a", "e", "b")
        await graph.tasks.wait_begun("c")
        await graph.cancel("c")
        seen = await watch.until("partially failed")
    assert seen == {
        "": ["version 1", "partially failed"],
        "a": ["failed", "ready", "completed"],
        "b": ["skipped", "waiting", "ready", "completed"],
        "c": ["skipped", "waiting", "ready", "cancelled"],
        "d": ["ready", "completed"],
        "e": ["ready", "completed"],
    }
