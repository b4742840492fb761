"""A graph's rows in memory."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio._json_size import json_size
from galaxy_trio.errors import NoSuchNode
from galaxy_trio.graph.model import Edge, Graph, Node, evolve_unchecked, free_edge_ids, name_edge
from galaxy_trio.graph.snapshot import NodeResult
from galaxy_trio.graph.state_machine import UNSTARTED, EdgeRow, NodeRow, NodeState
from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

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
        repeated: Whether it runs again after a retry. Nodes after it that ran before keep their decided edges.
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
    repeated: bool = False

    _known: NodeResult = attrs.field(default=NodeResult(), init=False)

    def known(self) -> NodeResult:
        """Return what is known of the node, as it is now."""
        known = self._known
        # Each edge to a later node asks for it, and each snapshot.
        if (
            known.state is self.state
            and known.ended is self.ended
            and known.started is self.started
            and known.task_id is self.task_id
            and known.device_id is self.device_id
            and known.attempt == self.attempt
            and known.result is self.result
            and known.error is self.error
        ):
            return known
        self._known = NodeResult(
            self.state,
            self.attempt,
            self.result,
            self.error,
            self.task_id,
            self.device_id,
            self.started,
            self.ended,
        )
        return self._known

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


class _States(Mapping[str, NodeState]):
    def __init__(self, nodes: Mapping[str, LiveNode]) -> None:
        self._nodes = nodes

    def __getitem__(self, node_id: str) -> NodeState:
        return self._nodes[node_id].state

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return repr(dict(self))


class MemoryTables:
    """The nodes and edges of a graph, in the order in which they were added."""

    def __init__(self) -> None:
        self._nodes: dict[str, LiveNode] = {}
        self._edges: dict[str, LiveEdge] = {}
        self._incoming: dict[str, dict[str, LiveEdge]] = {}
        self._outgoing: dict[str, dict[str, LiveEdge]] = {}
        self._free_ids = free_edge_ids(self._edges)
        self._graph: Graph | None = None
        self.size = 0
        """Bytes of memory of the texts and data of all nodes and edges. An edit counts them."""
        self._results_size = 0

    @property
    def states(self) -> Mapping[str, NodeState]:
        """The nodes' states by id, as they are when they are read."""
        return _States(self._nodes)

    @property
    def nodes(self) -> Mapping[str, LiveNode]:
        """The nodes by id."""
        return self._nodes

    @property
    def edges(self) -> Mapping[str, LiveEdge]:
        """The edges by id."""
        return self._edges

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
        """Return a graph with the current nodes and edges, and with all else that is given. It is the same until they change."""
        if self._graph is None:
            nodes = tuple([node.spec for node in self._nodes.values()])
            edges = tuple([edge.spec for edge in self._edges.values()])
            self._graph = evolve_unchecked(given, nodes=nodes, edges=edges, _named_edges=edges, _size=self.size)
        return self._graph

    def incoming(self, node_id: str) -> Collection[LiveEdge]:
        """Return the edges to a node."""
        return self._incoming[node_id].values()

    def outgoing(self, node_id: str) -> Collection[LiveEdge]:
        """Return the edges from a node."""
        return self._outgoing[node_id].values()

    def add_node(self, spec: Node) -> LiveNode:
        """Add a node."""
        self._graph = None
        node = self._nodes[spec.id] = LiveNode(spec.id, spec=spec)
        self._incoming[spec.id] = {}
        self._outgoing[spec.id] = {}
        return node

    def remove_node(self, node_id: str) -> None:
        """Remove a node, which has no edges left."""
        self._graph = None
        node = self._nodes.pop(node_id)
        del self._incoming[node_id], self._outgoing[node_id]
        self._results_size -= node.size

    def replace_node(self, spec: Node) -> None:
        """Replace what was given for a node."""
        self._graph = None
        self._nodes[spec.id].spec = spec

    def add_edges(self, specs: Sequence[Edge]) -> list[LiveEdge]:
        """Add edges, and make up ids for those that have none: others than those of the rest."""
        self._graph = None
        given = {spec.id for spec in specs}
        added: list[LiveEdge] = []
        for given_spec in specs:
            spec = given_spec
            if (edge_id := spec.id) is None:
                edge_id = next(free_id for free_id in self._free_ids if free_id not in given)
                spec = name_edge(spec, edge_id)
            edge = LiveEdge(edge_id, spec.source, spec.target, spec.when, spec=spec)
            self._edges[edge_id] = self._outgoing[spec.source][edge_id] = self._incoming[spec.target][edge_id] = edge
            added.append(edge)
        return added

    def remove_edge(self, edge: LiveEdge) -> None:
        """Remove an edge."""
        self._graph = None
        del self._edges[edge.id], self._outgoing[edge.source][edge.id], self._incoming[edge.target][edge.id]

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
