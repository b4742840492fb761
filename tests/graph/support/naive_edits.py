"""A naive model of edits: each change is tried on a copy of the whole graph, and taken over if no rule refuses it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio.errors import CycleError, GraphError, GraphTooLarge, NoSuchNode, NotEditable
from galaxy_trio.graph.model import Edge, Node, edge_size, node_size
from galaxy_trio.graph.state_machine import NodeState

from .naive_graph import NaiveEdge, NaiveGraph, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_serials: Final = itertools.count()


class RefusedAs(Refused):
    """The model refuses a change with an error of the package."""

    def __init__(self, error: type[GraphError]) -> None:
        super().__init__(error)
        self.error = error


@attrs.define(eq=False)
class AnyCondition:
    """A condition that is met, is not met, or raises. It counts how often it is asked."""

    met: bool | None
    result: object
    asked: int = 0

    def __call__(self, result: object) -> bool:
        """Evaluate it."""
        assert result == self.result
        self.asked += 1
        if self.met is None:
            raise ZeroDivisionError
        return self.met


@attrs.define
class EditableGraph:
    """The model of a graph that is edited.

    Attributes:
        max_nodes: The number of nodes that it may have.
        max_edges: The number of edges that it may have.
        max_size: The bytes of its texts and data.
        states: The states and decisions.
        nodes: The nodes as they were given.
        serials: A number for each node, which another node with the same id does not have.
        edges: The edges as they were given, by the keys of `states.edges`.
        edges_before: The edges before the edit, by their ids.
    """

    max_nodes: int
    max_edges: int
    max_size: int
    states: NaiveGraph = attrs.Factory(NaiveGraph)
    nodes: dict[str, Node] = attrs.Factory(dict[str, Node])
    serials: dict[str, int] = attrs.Factory(dict[str, int])
    edges: dict[str, Edge] = attrs.Factory(dict[str, Edge])
    edges_before: dict[str, Edge] = attrs.Factory(dict[str, Edge])

    def copy(self) -> EditableGraph:
        """Return a copy, whose changes do not change this one."""
        return attrs.evolve(
            self,
            states=self.states.edited(),
            nodes=dict(self.nodes),
            serials=dict(self.serials),
            edges=dict(self.edges),
        )

    # The changes, named and called as those of `GraphEdit`.

    def add(self, node: Node, after: str | Iterable[str] = ()) -> None:
        """Add a node."""
        if node.id in self.nodes:
            raise RefusedAs(GraphError)
        self.nodes[node.id], self.serials[node.id] = node, next(_serials)
        self.states.nodes[node.id] = NodeState.WAITING
        for source in (after,) if isinstance(after, str) else after:
            self.connect(Edge(source, node.id))

    def replace(self, node: Node) -> None:
        """Replace a node."""
        self._check_editable(node.id)
        self.nodes[node.id] = node

    def remove(self, node_id: str) -> None:
        """Remove a node, its edges, and the holds on it."""
        self._check_editable(node_id)
        self._remove_edges(key for key, edge in self.edges.items() if node_id in (edge.source, edge.target))
        del self.nodes[node_id], self.serials[node_id], self.states.nodes[node_id]
        self.states.holds.pop(node_id, None)

    def connect(self, edge: Edge) -> None:
        """Add an edge."""
        if edge.source not in self.nodes:
            raise RefusedAs(NoSuchNode)
        self._check_editable(edge.target)
        if edge.id in self.edges:
            raise RefusedAs(GraphError)
        key = f"unnamed {next(_serials)}" if edge.id is None else edge.id
        met = isinstance(edge.condition, AnyCondition) and bool(edge.condition.met)
        self.edges[key] = edge
        self.states.edges[key] = NaiveEdge(edge.source, edge.target, edge.when, met)

    def disconnect(self, source: str, target: str) -> None:
        """Remove the edges from one node to another."""
        self._check_editable(target)
        keys = [key for key, edge in self.edges.items() if (edge.source, edge.target) == (source, target)]
        if not keys:
            raise RefusedAs(GraphError)
        self._remove_edges(keys)

    def _remove_edges(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            del self.edges[key], self.states.edges[key]

    def _check_editable(self, node_id: str) -> None:
        if node_id not in self.nodes:
            raise RefusedAs(NoSuchNode)
        try:
            self.states.check_editable(node_id)
        except Refused:
            raise RefusedAs(NotEditable) from None

    # The edit as a whole.

    @property
    def size(self) -> int:
        """The bytes of texts and data."""
        return sum(map(node_size, self.nodes.values())) + sum(map(edge_size, self.edges.values()))

    def check(self) -> None:
        """Refuse a graph that is too large, or has a cycle."""
        if len(self.nodes) > self.max_nodes or len(self.edges) > self.max_edges or self.size > self.max_size:
            raise RefusedAs(GraphTooLarge)
        try:
            self.states.check_cycles()
        except Refused:
            raise RefusedAs(CycleError) from None

    @property
    def raises(self) -> bool:
        """Whether a condition that has to be evaluated now raises."""
        return any(
            isinstance(edge.condition, AnyCondition)
            and edge.condition.met is None
            and self.states.nodes[edge.source] is NodeState.COMPLETED
            and not self.states.holds[edge.source]
            for edge in self.edges.values()
        )

    def name_edges(self, named: Mapping[str, Edge]) -> None:
        """Take over the ids that were made up for edges: each is that of an edge that is alike."""
        unnamed = [key for key in self.edges if key not in named]
        for name in [name for name in named if name not in self.edges]:
            key = next(key for key in unnamed if self.edges[key] == attrs.evolve(named[name], id=None))
            unnamed.remove(key)
            self.edges[name], self.states.edges[name] = self.edges.pop(key), self.states.edges.pop(key)
        assert not unnamed
        self.edges_before = dict(self.edges)

    def is_changed_since(self, before: EditableGraph) -> bool:
        """Whether anything was changed, and not changed back."""
        return (
            self.serials != before.serials
            or any(self.nodes[name] is not node for name, node in before.nodes.items())
            or sorted(map(id, self.edges.values())) != sorted(map(id, before.edges.values()))
        )

    def added_since(self, before: EditableGraph) -> set[str]:
        """Return the nodes that were added."""
        return {name for name, serial in self.serials.items() if before.serials.get(name) != serial}

    def replaced_since(self, before: EditableGraph) -> set[str]:
        """Return the nodes that were replaced, and are still there."""
        kept = self.nodes.keys() - self.added_since(before)
        return {name for name in kept if self.nodes[name] is not before.nodes[name]}

    def with_new_edges(self, before: EditableGraph) -> set[str]:
        """Return the targets of new edges."""
        old = set(map(id, before.edges.values()))
        return {edge.target for edge in self.edges.values() if id(edge) not in old}

    def without_old_edges(self, before: EditableGraph) -> set[str]:
        """Return the targets of edges that were removed."""
        there = set(map(id, self.edges.values()))
        return {edge.target for edge in before.edges.values() if id(edge) not in there}
