"""A graph's rows in memory."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio._json_size import json_size
from galaxy_trio.errors import NoSuchNode
from galaxy_trio.graph.model import Edge, Graph, Node, edge_size, node_size
from galaxy_trio.graph.snapshot import NodeResult
from galaxy_trio.graph.state_machine import UNSTARTED, EdgeRow, NodeRow, NodeState
from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

MAX_RESULTS: Final = 2**30
"""Bytes of memory of the results of a graph's nodes together."""


@attrs.define(eq=False, kw_only=True)
class LiveNode(NodeRow):
    """A node with what is known of its attempts.

    Attributes:
        spec: The node as it was given.
        result: The result of its last attempt.
        error: The reason why that did not complete.
        task_id: The task of the last attempt.
        device_id: The device of the last attempt.
        started: When the last attempt began.
        ended: When it ended.
        not_before: When the next attempt may begin, on trio's clock.
        size: Bytes of memory of its result and error.
    """

    spec: Node
    result: JSON = None
    error: str | None = None
    task_id: str | None = None
    device_id: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    not_before: float | None = None
    size: int = 0

    def known(self) -> NodeResult:
        """Return what is known of the node, as it is now."""
        return NodeResult(
            self.state, self.attempt, self.result, self.error, self.task_id, self.device_id, self.started, self.ended
        )

    def load(self, known: NodeResult) -> None:
        """Take over what was known of a node before, except for its result. One that ran then is lost: nothing waits for its end."""
        if known.state not in UNSTARTED:
            self.state = NodeState.LOST if known.state is NodeState.RUNNING else known.state
        self.attempt: int = known.attempt
        self.task_id, self.device_id = known.task_id, known.device_id
        self.started, self.ended = known.started, known.ended


@attrs.define(eq=False, kw_only=True)
class LiveEdge(EdgeRow):
    """An edge as it was given, with its decision.

    Attributes:
        spec: The edge as it was given.
        met: Whether its condition is met, if it was evaluated before the edge was added.
    """

    spec: Edge
    met: bool | None = None


class MemoryTables:
    """The nodes and edges of a graph, in the order in which they were added."""

    def __init__(self) -> None:
        self._nodes: dict[str, LiveNode] = {}
        self._edges: dict[str, LiveEdge] = {}
        self._incoming: dict[str, dict[str, LiveEdge]] = {}
        self._outgoing: dict[str, dict[str, LiveEdge]] = {}
        self._numbers = itertools.count(1)
        self._size = 0
        self._results_size = 0

    @property
    def nodes(self) -> Mapping[str, LiveNode]:
        """The nodes by id."""
        return self._nodes

    @property
    def edges(self) -> Mapping[str, LiveEdge]:
        """The edges by id."""
        return self._edges

    @property
    def size(self) -> int:
        """Bytes of memory of the texts and data of all nodes and edges."""
        return self._size

    def node(self, node_id: str) -> LiveNode:
        """Return a node.

        Raises:
            NoSuchNode: There is none with this id.
        """
        try:
            return self._nodes[node_id]
        except KeyError:
            raise NoSuchNode(f"there is no node {node_id!r} in this graph") from None

    def graph(self, given: Graph) -> Graph:
        """Return a graph with the current nodes and edges, and with all else that is given."""
        nodes, edges = self._nodes.values(), self._edges.values()
        return attrs.evolve(given, nodes=[node.spec for node in nodes], edges=[edge.spec for edge in edges])

    def incoming(self, node_id: str) -> Collection[LiveEdge]:
        """Return the edges to a node."""
        return self._incoming[node_id].values()

    def outgoing(self, node_id: str) -> Collection[LiveEdge]:
        """Return the edges from a node."""
        return self._outgoing[node_id].values()

    def add_node(self, spec: Node) -> LiveNode:
        """Add a node."""
        node = self._nodes[spec.id] = LiveNode(spec.id, spec=spec)
        self._size += node_size(spec)
        self._incoming[spec.id] = {}
        self._outgoing[spec.id] = {}
        return node

    def remove_node(self, node_id: str) -> None:
        """Remove a node, which has no edges left."""
        node = self._nodes.pop(node_id)
        del self._incoming[node_id], self._outgoing[node_id]
        self._size -= node_size(node.spec)
        self._results_size -= node.size

    def replace_node(self, spec: Node) -> None:
        """Replace what was given for a node."""
        node = self._nodes[spec.id]
        self._size += node_size(spec) - node_size(node.spec)
        node.spec = spec

    def add_edges(self, specs: Sequence[Edge]) -> list[LiveEdge]:
        """Add edges, and make up ids for those that have none: others than those of the rest."""
        given = {spec.id for spec in specs}
        return [self._add_edge(spec, self._free_id(given) if spec.id is None else spec.id) for spec in specs]

    def _add_edge(self, spec: Edge, edge_id: str) -> LiveEdge:
        edge = LiveEdge(edge_id, spec.source, spec.target, spec.when, spec=attrs.evolve(spec, id=edge_id))
        self._edges[edge_id] = self._outgoing[spec.source][edge_id] = self._incoming[spec.target][edge_id] = edge
        self._size += edge_size(edge.spec)
        return edge

    def _free_id(self, given: Collection[str | None]) -> str:
        return next(
            edge_id
            for edge_id in map("edge-{}".format, self._numbers)
            if edge_id not in self._edges and edge_id not in given
        )

    def remove_edge(self, edge: LiveEdge) -> None:
        """Remove an edge."""
        del self._edges[edge.id], self._outgoing[edge.source][edge.id], self._incoming[edge.target][edge.id]
        self._size -= edge_size(edge.spec)

    def keep_result(self, node: LiveNode, result: JSON, error: str | None) -> bool:
        """Replace the result and the error of a node; return whether all results together are within their limit.

        Above the limit, the node has no result and no error afterwards.
        """
        size = 0 if result is None and error is None else json_size((result, error), MAX_RESULTS)
        fits = self._results_size - node.size + size <= MAX_RESULTS
        node.result, node.error, size = (result, error, size) if fits else (None, None, 0)
        self._results_size += size - node.size
        node.size = size
        return fits
