"""What an edit may change, and what follows from it: without tasks and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio.errors import CycleError, GraphError, GraphTooLarge, NotEditable
from galaxy_trio.graph import Edge, Node, NodeState, When
from galaxy_trio.graph.edit import Edited, GraphEdit
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables
from galaxy_trio.graph.model import MAX_NODES
from galaxy_trio.graph.state_machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Callable


class Rules:
    """A graph that is edited and run by hand. Conditions are met."""

    def __init__(self, names: str = "", *edges: str | Edge) -> None:
        self.tables = MemoryTables()
        self.machine = StateMachine[LiveNode, LiveEdge](self.tables, lambda _: True)

        def build(edit: GraphEdit) -> None:
            for name in names:
                edit.add(Node(name, name))
            for edge in edges:
                edit.connect(edge if isinstance(edge, Edge) else Edge(edge[0], edge[1]))

        self.edit(build)

    def edit(self, change: Callable[[GraphEdit], object]) -> Edited | None:
        edit = GraphEdit(self.tables)
        change(edit)
        return edit._apply(self.machine)

    def run(self, name: str, end: NodeState | None = NodeState.COMPLETED) -> None:
        assert self.states[name] == "ready"
        self.machine.start(name)
        if end is not None:
            self.machine.end(name, end)

    @property
    def states(self) -> dict[str, str]:
        return {name: node.state.value for name, node in self.tables.nodes.items()}


def test_edit_without_changes_has_no_result() -> None:
    assert Rules("a").edit(lambda _: None) is None


def test_what_an_edit_added_and_removed_again_leaves_no_trace() -> None:
    def change(edit: GraphEdit) -> None:
        edit.add(Node("b", "b"), after="a")
        edit.add(Node("c", "c"), after=["a", "b"])
        edit.remove("b")

    rules = Rules("a")
    edited = rules.edit(change)
    assert edited is not None
    assert (edited.added, edited.removed) == (("c",), ())
    assert [(edge.source, edge.target) for edge in rules.tables.edges.values()] == [("a", "c")]


def test_node_that_is_removed_and_added_again_has_only_its_new_edges() -> None:
    def change(edit: GraphEdit) -> None:
        edit.remove("b")
        edit.add(Node("b", "new"))
        edit.connect(Edge("b", "d"))

    rules = Rules("abcd", "ab", "bc", "ad")
    edited = rules.edit(change)
    assert edited is not None
    assert (edited.added, edited.removed) == (("b",), ())
    assert rules.states == {"a": "ready", "c": "ready", "d": "waiting", "b": "ready"}
    assert rules.tables.node("b").spec.request == "new"


def test_node_that_is_replaced_keeps_its_edges() -> None:
    def change(edit: GraphEdit) -> None:
        edit.replace(Node("b", "new"))
        edit.add(Node("c", "c"))
        edit.replace(Node("c", "newer"))

    rules = Rules("ab", "ab")
    edited = rules.edit(change)
    assert edited is not None
    assert (edited.added, edited.replaced) == (("c",), ("b",))
    assert rules.states == {"a": "ready", "b": "waiting", "c": "ready"}
    assert rules.tables.node("c").spec.request == "newer"


def test_edge_may_be_added_and_removed_by_one_edit() -> None:
    def change(edit: GraphEdit) -> None:
        edit.connect(Edge("a", "b"))
        edit.disconnect("a", "b")
        edit.add(Node("c", "c"), after="a")
        edit.disconnect("a", "c")

    rules = Rules("ab")
    rules.edit(change)
    assert rules.states == {"a": "ready", "b": "ready", "c": "ready"}


def test_edge_that_is_not_there_cannot_be_removed() -> None:
    rules = Rules("abc", "ab")
    with pytest.raises(GraphError, match="there is no edge 'a' -> 'c'"):
        rules.edit(lambda edit: edit.disconnect("a", "c"))

    def twice(edit: GraphEdit) -> None:
        edit.disconnect("a", "b")
        edit.disconnect("a", "b")

    with pytest.raises(GraphError, match="there is no edge 'a' -> 'b'"):
        rules.edit(twice)

    def new(edit: GraphEdit) -> None:
        edit.add(Node("d", "d"))
        edit.disconnect("a", "d")

    with pytest.raises(GraphError, match="there is no edge 'a' -> 'd'"):
        rules.edit(new)


def test_id_of_an_edge_is_its_own() -> None:
    rules = Rules("abc", Edge("a", "b", id="edge-1"), "bc")
    assert set(rules.tables.edges) == {"edge-1", "edge-2"}
    with pytest.raises(GraphError, match="edge 'a' -> 'c': there is an edge 'edge-1' already"):
        rules.edit(lambda edit: edit.connect(Edge("a", "c", id="edge-1")))

    def change(edit: GraphEdit) -> None:
        edit.disconnect("a", "b")
        edit.connect(Edge("a", "c", id="edge-1"))

    rules.edit(change)
    assert rules.tables.edges["edge-1"].target == "c"


def test_id_of_a_new_edge_that_is_removed_again_is_free() -> None:
    def change(edit: GraphEdit) -> None:
        edit.connect(Edge("a", "b", id="x"))
        with pytest.raises(GraphError, match="there is an edge 'x' already"):
            edit.connect(Edge("a", "c", id="x"))
        edit.disconnect("a", "b")
        edit.connect(Edge("a", "c", id="x"))

    rules = Rules("abc")
    rules.edit(change)
    assert {name: edge.target for name, edge in rules.tables.edges.items()} == {"x": "c"}


CHANGES_OF_A: list[Callable[[GraphEdit], object]] = [
    lambda edit: edit.replace(Node("a", "x")),
    lambda edit: edit.remove("a"),
    lambda edit: edit.connect(Edge("b", "a")),
    lambda edit: edit.disconnect("b", "a"),
]


@pytest.mark.parametrize("change", CHANGES_OF_A)
@pytest.mark.parametrize("end", [None, NodeState.COMPLETED, NodeState.FAILED])
def test_node_that_has_started_does_not_change(change: Callable[[GraphEdit], object], end: NodeState | None) -> None:
    rules = Rules("ab")
    rules.run("a", end)
    with pytest.raises(NotEditable, match=r"node 'a' is .*: only nodes that have not started can change") as caught:
        rules.edit(change)
    assert caught.value.state is (end or NodeState.RUNNING)


def test_cycle_through_old_and_new_edges_is_refused() -> None:
    def change(edit: GraphEdit) -> None:
        edit.add(Node("x", "x"), after="c")
        edit.connect(Edge("x", "y"))
        edit.connect(Edge("y", "a"))

    rules = Rules("abcy", "ab", "bc", "ac")
    with pytest.raises(CycleError, match="the edges would form a cycle: ") as caught:
        rules.edit(change)
    assert {"a", "c", "x", "y"} <= set(caught.value.nodes)
    assert "x" not in rules.states


def test_edges_that_meet_again_are_no_cycle() -> None:
    def change(edit: GraphEdit) -> None:
        for source, target in ("xa", "xb", "xc", "xd"):
            edit.connect(Edge(source, target))

    rules = Rules("xabcd", "ab", "ac", "bd", "cd")
    rules.edit(change)
    assert rules.states == {"x": "ready", "a": "waiting", "b": "waiting", "c": "waiting", "d": "waiting"}


def test_edit_that_adds_too_many_nodes_is_refused() -> None:
    def change(edit: GraphEdit) -> None:
        for number in range(MAX_NODES):
            edit.add(Node(f"n{number}", "x"))

    rules = Rules("a")
    with pytest.raises(GraphTooLarge, match="at most 10,000 nodes, and this one has 10,001"):
        rules.edit(change)
    assert rules.states == {"a": "ready"}


def test_retry_leaves_what_runs_and_resets_what_was_skipped_after_it() -> None:
    rules = Rules("arb", Edge("a", "r", When.FAILURE), "ab")
    rules.run("a", NodeState.FAILED)
    rules.run("r", None)
    rules.machine.retry("a")
    assert rules.states == {"a": "ready", "r": "running", "b": "waiting"}
    assert {edge.target: edge.holds for edge in rules.tables.edges.values()} == {"r": True, "b": None}


def test_retry_under_a_hold_does_not_touch_what_is_undecided() -> None:
    rules = Rules("ab", "ab")
    held = rules.machine.hold(["a"])
    rules.run("a", NodeState.FAILED)
    assert rules.states == {"a": "failed", "b": "waiting"}
    rules.machine.retry("a")
    rules.machine.release(held)
    assert rules.states == {"a": "ready", "b": "waiting"}


def test_condition_of_a_new_edge_from_a_held_node_is_not_asked_before_the_release() -> None:
    def broken(_: object) -> bool:
        raise ZeroDivisionError

    rules = Rules("ab")
    rules.machine.hold(["a"])
    rules.run("a")
    rules.edit(lambda edit: edit.connect(Edge("a", "b", When.CONDITION, condition=broken)))
    assert rules.states == {"a": "completed", "b": "waiting"}
