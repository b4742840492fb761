"""Puts the nodes and edges of a document together, and checks what holds between them. Every problem has its path in the document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._config.reader import MAX_PROBLEMS, member_path
from galaxy_trio._nearest import did_you_mean
from galaxy_trio.errors import CycleError, GraphTooLarge
from galaxy_trio.graph.cycles import show_cycle
from galaxy_trio.graph.model import MAX_EDGES, MAX_NODES, Graph
from galaxy_trio.graph.snapshot import GraphSnapshot, NodeResult
from galaxy_trio.graph.state_machine import ENDED, UNSTARTED, NodeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from galaxy_trio._config.reader import ObjectReader
    from galaxy_trio.graph.model import Edge, Node
    from galaxy_trio.messages import JSON

T = TypeVar("T")

_UNTOUCHED: Final = NodeResult()


class Assembly:
    """The nodes and edges of a document that is being read.

    Args:
        document: Reports problems with their paths in the document.
        problems: The problems so far; `document` adds to them.
        nodes_key: The document's key for nodes.
        edges_key: The document's key for edges.
    """

    def __init__(self, document: ObjectReader, problems: list[str], nodes_key: str, edges_key: str) -> None:
        self.document = document
        self._problems = problems
        self._nodes_key, self._edges_key = nodes_key, edges_key
        self._nodes: dict[str, Node] = {}
        self._edges: list[Edge] = []
        self._edges_by_id: dict[str, Edge] = {}

    def has_room(self, nodes: int, edges: int) -> bool:
        """Check the numbers of nodes and edges; whether the document is small enough to be read on."""
        if nodes > MAX_NODES:
            self.document.report(
                self._nodes_key, f"a graph has at most {MAX_NODES:,} nodes, and this one has {nodes:,}"
            )
        if edges > MAX_EDGES:
            self.document.report(
                self._edges_key, f"a graph has at most {MAX_EDGES:,} edges, and this one has {edges:,}"
            )
        return nodes <= MAX_NODES and edges <= MAX_EDGES

    def until_full(self, items: Iterable[T]) -> Iterator[T]:
        """Pass on items, until there are as many problems as are reported."""
        for item in items:
            if len(self._problems) >= MAX_PROBLEMS:
                return
            yield item

    def add_node(self, place: str, node: Node) -> None:
        """Add a node. Its id counts also if another part of it was a problem."""
        if node.id in self._nodes:
            self.document.report(place, f"the node id {node.id!r} is given twice")
        else:
            self._nodes[node.id] = node

    def has_node(self, node_id: str) -> bool:
        """Whether there is a node with this id."""
        return node_id in self._nodes

    def add_edge(self, source_place: str, target_place: str, id_place: str, edge: Edge) -> None:
        """Add an edge between nodes that were added before."""
        known = [
            self._checked_end(place, end) for place, end in ((source_place, edge.source), (target_place, edge.target))
        ]
        if not all(known):
            return
        if edge.id is not None:
            if edge.id in self._edges_by_id:
                self.document.report(id_place, f"the edge id {edge.id!r} is given twice")
                return
            self._edges_by_id[edge.id] = edge
        self._edges.append(edge)

    def _checked_end(self, place: str, node_id: str) -> bool:
        if node_id in self._nodes:
            return True
        self.document.report(place, f"there is no node {shorten(node_id)}{did_you_mean(node_id, self._nodes)}")
        return False

    def snapshot(
        self,
        *,
        name: str | None,
        metadata: Mapping[str, JSON],
        version: int,
        results: Mapping[str, NodeResult],
        decisions: Mapping[str, bool],
    ) -> GraphSnapshot:
        """Return the whole; an empty one if there are problems."""
        try:
            graph = Graph(self._nodes.values(), self._edges, name=name, metadata=metadata)
        except CycleError as error:
            self.document.report(self._edges_key, f"they form a cycle: {show_cycle(error.nodes)}")
            graph = Graph()
        except GraphTooLarge as error:
            self.document.report(self._nodes_key, str(error))
            graph = Graph()
        return GraphSnapshot(Graph()) if self._problems else GraphSnapshot(graph, version, results, decisions)

    def check_decisions(self, key: str, decisions: Mapping[str, bool], results: Mapping[str, NodeResult]) -> None:
        """Check that the decisions of edges are those of a graph that ran."""
        for edge_id, holds in self.until_full(decisions.items()):
            place = member_path(key, edge_id)
            edge = self._edges_by_id.get(edge_id)
            if edge is None:
                self.document.report(place, f"there is no edge with this id{did_you_mean(edge_id, self._edges_by_id)}")
                continue
            source, known = results.get(edge.source, _UNTOUCHED).state, results.get(edge.target, _UNTOUCHED)
            target = known.state
            # What ran before its source was retried keeps the edge, also if it is retried itself.
            if source not in ENDED and target in UNSTARTED | {NodeState.SKIPPED} and not known.attempt:
                self.document.report(place, f"the edge is decided, and its source {edge.source!r} is {source}")
            elif not holds and target in UNSTARTED:
                self.document.report(place, f"the edge does not hold, and its target {edge.target!r} is {target}")
