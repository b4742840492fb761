"""Edits and graphs that are refused, as a whole and with the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from galaxy_trio.graph import Edge, Node

from .support.running import plan, refused

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

    from .support.running import RunningGraph


async def test_node_that_has_started_does_not_change(graph: RunningGraph) -> None:
    await graph.start(plan("rcfkls", "fs"))
    for name, end in (("c", "completed"), ("f", "failed"), ("l", "lost"), ("k", "cancelled")):
        await graph.bring_to(name, end)
    states = {"r": "running", "c": "completed", "f": "failed", "k": "cancelled", "l": "lost", "s": "skipped"}
    before = await graph.reach(**states)
    for name, state in states.items():
        changes: list[dict[str, Any]] = [
            {"replace": (Node(name, "other"),)},
            {"remove": (name,)},
            {"connect": (Edge("c", name),)},
            {"disconnect": (("c", name),)},
        ]
        for change in changes:
            with refused(f"node {name!r} is {state}: only nodes that have not started can change"):
                await graph.edit(**change)
    assert await graph.look() == before


async def test_refused_edit_changes_nothing(graph: RunningGraph) -> None:
    await graph.start(plan("abcd", "ab", "bc"))
    before = await graph.reach(a="running", b="waiting", c="waiting", d="running")
    with refused("node 'a' is running: only nodes that have not started can change"):
        await graph.edit(
            remove=("c",), replace=(Node("b", "other"),), add=plan("e").nodes, connect=(Edge("e", "b"), Edge("d", "a"))
        )
    assert await graph.look() == before


async def test_edit_that_would_form_a_cycle_is_refused(graph: RunningGraph) -> None:
    await graph.start(plan("abcx", "xa", "ab", "bc"))
    await graph.tasks.wait_begun("x")
    with refused("the edges would form a cycle: 'b' -> 'c' -> 'a' -> 'b'"):
        await graph.edit(connect=(Edge("c", "a"),))
    with refused("the edges would form a cycle: 'e' -> 'd' -> 'e'"):
        await graph.edit(add=plan("de").nodes, connect=(Edge("d", "e"), Edge("e", "d")))
    with refused("the edges would form a cycle: 'b' -> 'b'"):
        await graph.edit(connect=(Edge("b", "b"),))


async def test_edit_of_what_is_not_there_is_refused(graph: RunningGraph) -> None:
    await graph.start(plan("abc", "ab", "bc"))
    missing: dict[str, dict[str, Any]] = {
        "there is no node 'z' in this graph": {"remove": ("z",)},
        "there is no node 'y' in this graph": {"replace": (Node("y", "y"),)},
        "edge 'z' -> 'b': there is no node 'z' in this graph": {"connect": (Edge("z", "b"),)},
        "there is no node 'x' in this graph": {"connect": (Edge("a", "x"),)},
        "there is no edge 'a' -> 'c'": {"disconnect": (("a", "c"),)},
        "edge 'c' -> 'b': there is no node 'c' in this graph": {"remove": ("c",), "connect": (Edge("c", "b"),)},
    }
    for words, change in missing.items():
        with refused(words):
            await graph.edit(**change)


async def test_edit_that_adds_what_is_there_is_refused(graph: RunningGraph) -> None:
    await graph.start(plan("abc", Edge("a", "b", id="e"), "bc"))
    with refused("there is a node 'b' already: replace it, or give this one another id"):
        await graph.edit(add=plan("b").nodes)
    with refused("edge 'a' -> 'c': there is an edge 'e' already: give this one another id"):
        await graph.edit(connect=(Edge("a", "c", id="e"),))


async def test_edit_of_another_version_is_refused_with_the_current_one(graph: RunningGraph) -> None:
    await graph.start(plan("ab", "ab"))
    await graph.edit(add=plan("c").nodes, version=0)
    for version in (0, 2):
        # What is wrong with it besides does not matter.
        with refused(f"the graph has version 1, not {version}: look at it again", version=1):
            await graph.edit(remove=("z",), version=version)
    assert await graph.edit(remove=("b",), version=1) == 2


async def test_document_that_is_no_graph_is_refused_with_each_problem(graph: RunningGraph) -> None:
    nodes: list[JSON] = [{"id": "a", "request": "a"}, {"id": "b", "request": "b"}]
    cycle: list[JSON] = [{"source": "a", "target": "b"}, {"source": "b", "target": "a"}]
    documents: list[tuple[str, dict[str, JSON]]] = [
        (
            "nodes[0].priority: expected a whole number from -100 to 100, got a string; nodes[1].request: is missing",
            {"nodes": [{"id": "a", "request": "a", "priority": "high"}, {"id": "b"}]},
        ),
        ("edges: they form a cycle: 'b' -> 'a' -> 'b'", {"nodes": nodes, "edges": cycle}),
        ("nodes[2].id: the node id 'a' is given twice", {"nodes": [*nodes, nodes[0]]}),
        (
            "edges[0].when: expected one of success, failure, condition, end; edges[0].target: there is no node 'z'",
            {"nodes": nodes, "edges": [{"source": "a", "target": "z", "when": "never"}]},
        ),
        ("tasks.a.description: is missing", {"tasks": {"a": {"task_id": "a"}}}),
    ]
    for words, document in documents:
        with refused(words):
            await graph.start(document)
