"""Graphs are checked when they are made."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.errors import CycleError, GraphError, GraphFailed, GraphTooLarge
from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphResult,
    GraphSnapshot,
    GraphState,
    Node,
    NodeResult,
    NodeState,
    When,
)
from galaxy_trio.graph.model import MAX_EDGES, MAX_NODES, MAX_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable


class Unhashable:
    """A function of which two are equal, and which cannot be a key."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, profile: object) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Node("a", "x" * (MAX_REQUEST + 1)), "node 'a': a request has at most 1,048,576 characters"),
        (lambda: Node("a", "x", device="d", os="linux"), "node 'a': give a device, or the properties"),
        (lambda: Node("a", "x", device="d", capabilities="web"), "node 'a': give a device, or the properties"),
        (lambda: Node("a", "x", device="d", where=lambda _: True), "node 'a': give a device, or the properties"),
        (
            lambda: Node("a", "x", priority=101),
            "node 'a': a priority is a whole number from -100 to 100, and this one is 101",
        ),
        (lambda: Node("", "x"), "a node id has 1 to 200 characters, and this one has 0"),
        (lambda: Node("\ud800", "x"), "a node id is text, and this one contains a lone surrogate"),
        (lambda: Edge("a", "b", id="x" * 201), "edge 'a' -> 'b': a name has 1 to 200 characters"),
        (lambda: Node("a", "x", where=Unhashable()), "node 'a': where is a function, or another callable that can be"),
        (lambda: Node("a", "x", timeout=-1), "node 'a': a timeout is a number of seconds or math.inf, not -1"),
        (lambda: Node("a", "x", timeout=math.nan), "node 'a': a timeout is a number of seconds or math.inf, not nan"),
        (lambda: Node("a", "x", retries=1001), "node 'a': retries are 0 to 1,000, not 1001"),
        (lambda: Node("a", "x", backoff=math.inf), "node 'a': a backoff is a number of seconds, not inf"),
        (lambda: Edge("a", "b", When.CONDITION), "edge 'a' -> 'b': a condition belongs to an edge with When.CONDITION"),
        (lambda: Edge("a", "b", condition=Condition("", "exists")), "edge 'a' -> 'b': a condition belongs to"),
        (lambda: Graph([Node("a", "x"), Node("b", "x"), Node("a", "y")]), "the node id 'a' is given twice"),
        (
            lambda: Graph([Node("a", "x"), Node("b", "x")], [Edge("a", "b", id="e"), Edge("a", "b", id="e")]),
            "the edge id 'e' is given twice",
        ),
        (lambda: Graph([Node("a", "x")], [Edge("a", "b")]), "edge 'a' -> 'b': there is no node 'b'"),
        (lambda: Graph([Node("b", "x")], [Edge("a", "b")]), "edge 'a' -> 'b': there is no node 'a'"),
        (
            lambda: GraphSnapshot(Graph(), nodes={"a": NodeResult()}),
            "the snapshot has the node 'a', which its graph does not have",
        ),
        (
            lambda: GraphSnapshot(Graph(), decisions={"e": True}),
            "the snapshot has the edge 'e', which its graph does not have",
        ),
    ],
)
def test_wrong_value_is_refused_with_its_place(make: Callable[[], object], message: str) -> None:
    with pytest.raises(GraphError, match=re.escape(message)):
        make()


def test_too_many_nodes_or_edges_are_refused() -> None:
    with pytest.raises(GraphTooLarge, match="at most 10,000 nodes, and this one has 10,001"):
        Graph([Node("a", "x")] * (MAX_NODES + 1))
    with pytest.raises(GraphTooLarge, match="at most 250,000 edges, and this one has 250,001"):
        Graph((), [Edge("a", "b")] * (MAX_EDGES + 1))


def test_cycle_is_named_by_its_nodes_in_order() -> None:
    nodes = [Node(name, "x") for name in "abcde"]
    edges = [Edge("a", "b"), Edge("b", "c"), Edge("c", "d"), Edge("d", "b"), Edge("d", "e")]
    with pytest.raises(CycleError) as caught:
        Graph(nodes, edges)
    ring = "bcd" * 2
    assert len(caught.value.nodes) == 3
    assert "".join(caught.value.nodes) in ring


def test_edge_from_a_node_to_itself_is_a_cycle() -> None:
    with pytest.raises(CycleError, match="the edges form a cycle: 'a' -> 'a'"):
        Graph([Node("a", "x")], [Edge("a", "a")])


def test_long_cycle_is_named_by_its_first_nodes_without_recursion() -> None:
    names = [f"n{number}" for number in range(5000)]
    edges = [Edge(name, after) for name, after in zip(names, names[1:] + names[:1], strict=True)]
    with pytest.raises(CycleError, match=r"… \(5,000 nodes\)$"):
        Graph([Node(name, "x") for name in names], edges)


def test_single_name_is_one_capability_and_one_tip() -> None:
    node = Node("a", "x", capabilities="browser", tips="be quick")
    assert (sorted(node.capabilities), node.tips) == (["browser"], ("be quick",))


def test_cancelled_graph_without_bad_nodes_says_that_it_was_cancelled() -> None:
    with pytest.raises(GraphFailed, match="the graph was cancelled"):
        GraphResult(GraphState.CANCELLED, {}).unwrap()


@pytest.mark.parametrize(
    ("failed", "message"),
    [
        (1, r"the graph is failed: node 'n0' is failed: it broke$"),
        (2, r"the graph is failed: node 'n0' is failed: it broke, and 1 more node did not complete$"),
        (3, r"the graph is failed: node 'n0' is failed: it broke, and 2 more nodes did not complete$"),
    ],
)
def test_failed_graph_names_the_first_node_and_counts_the_others(failed: int, message: str) -> None:
    results = {f"n{number}": NodeResult(NodeState.FAILED, error="it broke") for number in range(failed)}
    with pytest.raises(GraphFailed, match=message):
        GraphResult(GraphState.FAILED, results).unwrap()
