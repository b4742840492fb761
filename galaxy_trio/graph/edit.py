"""Edits of a graph: collected, checked as a whole, then applied in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from galaxy_trio.errors import CycleError, GraphError, NoSuchNode, NotEditable
from galaxy_trio.graph.cycles import find_cycle, nodes_between, show_cycle
from galaxy_trio.graph.model import Edge, check_size, conditions_met, edge_size, node_size
from galaxy_trio.graph.state_machine import UNSTARTED, Changes, NodeState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables
    from galaxy_trio.graph.model import Node
    from galaxy_trio.graph.state_machine import StateMachine


@attrs.frozen
class Edited:
    """What an edit did.

    Attributes:
        added: The ids of the new nodes.
        replaced: The ids of the nodes that were replaced.
        removed: The ids of the nodes that were removed.
        outdated: The ids of the nodes that stay ready, and whose request or results of nodes before them changed.
        changes: What followed from it.
    """

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    outdated: tuple[str, ...]
    changes: Changes


def _is_met(edge: Edge, source: LiveNode) -> bool:
    return conditions_met(edge, source.result)


class GraphEdit:
    """Collects the changes of an edit. Nothing happens until all of them are accepted.

    Each method checks its change against the graph as it will be after those before it. Only nodes that have not started, and edges to
    such nodes, can change.
    """

    def __init__(self, tables: MemoryTables, is_met: Callable[[Edge, LiveNode], bool] = _is_met) -> None:
        self._tables = tables
        # Decides whether a node that has completed meets the condition of a new edge from it.
        self._is_met = is_met
        # The changes against the tables. A node that is removed and added again is in both.
        self._added: dict[str, Node] = {}
        self._replaced: dict[str, Node] = {}
        self._removed: dict[str, None] = {}
        self._connected: dict[tuple[str, str], list[Edge]] = {}
        self._new_ids = set[str]()
        self._new_pairs: dict[str, set[tuple[str, str]]] = {}
        self._disconnected: dict[str, LiveEdge] = {}

    def add(self, node: Node, after: Iterable[str] = ()) -> None:
        """Add a node.

        Args:
            node: The node. Its id is new.
            after: The ids of nodes after whose success it runs. Those that have ended are decided immediately.

        Raises:
            GraphError: There is a node with this id already.
            NoSuchNode: There is no node with one of the ids in `after`.
        """
        if self._exists(node.id):
            raise GraphError(f"there is a node {node.id!r} already: replace it, or give this one another id")
        self._added[node.id] = node
        try:
            for source in [after] if isinstance(after, str) else after:
                self.connect(Edge(source, node.id))
        except GraphError:
            self.remove(node.id)
            raise

    def replace(self, node: Node) -> None:
        """Replace the node with the same id. Its edges stay.

        Raises:
            NoSuchNode: There is no node with this id.
            NotEditable: The node has started.
        """
        self._check_editable(node.id)
        (self._added if node.id in self._added else self._replaced)[node.id] = node

    def remove(self, node_id: str) -> None:
        """Remove a node and its edges. Nodes that waited for it do not wait for it any more.

        Raises:
            NoSuchNode: There is no node with this id.
            NotEditable: The node has started.
        """
        self._check_editable(node_id)
        if node_id in self._added:
            del self._added[node_id]
        else:
            self._replaced.pop(node_id, None)
            self._removed[node_id] = None
            for edge in (*self._tables.incoming(node_id), *self._tables.outgoing(node_id)):
                self._disconnected[edge.id] = edge
        for pair in self._new_pairs.pop(node_id, ()):
            self._take_back(*pair)

    def connect(self, edge: Edge) -> None:
        """Add an edge to a node that has not started. If its source has ended, it is decided immediately.

        Raises:
            NoSuchNode: One of its nodes is not there.
            NotEditable: Its target has started.
            GraphError: There is an edge with its id already.
        """
        if not self._exists(edge.source):
            raise NoSuchNode(f"{edge}: there is no node {edge.source!r} in this graph")
        self._check_editable(edge.target)
        if edge.id is not None:
            if edge.id in self._new_ids or (edge.id in self._tables.edges and edge.id not in self._disconnected):
                raise GraphError(f"{edge}: there is an edge {edge.id!r} already: give this one another id")
            self._new_ids.add(edge.id)
        pair = edge.source, edge.target
        self._connected.setdefault(pair, []).append(edge)
        for node_id in pair:
            self._new_pairs.setdefault(node_id, set()).add(pair)

    def disconnect(self, source: str, target: str) -> None:
        """Remove all edges from one node to another, which has not started.

        Raises:
            NoSuchNode: One of the nodes is not there.
            NotEditable: The target has started.
            GraphError: There is no such edge.
        """
        self._check_editable(target)
        new = self._take_back(source, target)
        old = [edge for edge in self._between(source, target) if edge.id not in self._disconnected]
        if not new and not old:
            raise GraphError(f"there is no {Edge(source, target)}")
        self._disconnected |= {edge.id: edge for edge in old}

    def _take_back(self, source: str, target: str) -> list[Edge]:
        """Take back the new edges from one node to another."""
        edges = self._connected.pop((source, target), [])
        self._new_ids.difference_update(edge.id for edge in edges)
        return edges

    # The graph as it will be.

    def _exists(self, node_id: str) -> bool:
        return node_id in self._added or (node_id in self._tables.nodes and node_id not in self._removed)

    def _check_editable(self, node_id: str) -> None:
        if not self._exists(node_id):
            raise NoSuchNode(f"there is no node {node_id!r} in this graph")
        state = NodeState.WAITING if node_id in self._added else self._tables.node(node_id).state
        if state not in UNSTARTED:
            raise NotEditable(f"node {node_id!r} is {state}: only nodes that have not started can change", state=state)

    def _between(self, source: str, target: str) -> list[LiveEdge]:
        if target not in self._tables.nodes:
            return []
        return [edge for edge in self._tables.incoming(target) if edge.source == source]

    def _totals(self) -> tuple[int, int, int]:
        """Count the nodes, the edges, and the bytes of memory of the graph as it will be."""
        tables = self._tables
        connected = sum(map(len, self._connected.values()))
        return (
            len(tables.nodes) + len(self._added) - len(self._removed),
            len(tables.edges) + connected - len(self._disconnected),
            self._size(),
        )

    def _nodes(self) -> Iterator[Node]:
        """All nodes of the graph as it will be, in any order."""
        for node_id, node in self._tables.nodes.items():
            if node_id not in self._removed:
                yield self._replaced.get(node_id, node.spec)
        yield from self._added.values()

    def _size(self) -> int:
        """Count the bytes of memory of the texts and data."""
        new = (*self._added.values(), *self._replaced.values())
        old = [self._tables.node(node_id).spec for node_id in (*self._removed, *self._replaced)]
        edges = sum(edge_size(edge) for edges in self._connected.values() for edge in edges)
        gone = sum(edge_size(edge.spec) for edge in self._disconnected.values())
        return self._tables.size + sum(map(node_size, new)) - sum(map(node_size, old)) + edges - gone

    def _check_cycles(self) -> None:
        """Search for a cycle through a new edge. All its nodes are behind a new edge, and in front of one."""
        new_targets: dict[str, list[str]] = {}  # by source
        for source, target in self._connected:
            new_targets.setdefault(source, []).append(target)

        def after(node_id: str) -> list[str]:
            return [edge.target for edge in self._left(node_id, self._tables.outgoing)]

        def before(node_id: str) -> list[str]:
            return [edge.source for edge in self._left(node_id, self._tables.incoming)]

        # Old edges suffice here: both ends of each new one are among the nodes from which the search begins.
        suspects = nodes_between({target for _, target in self._connected}, new_targets, after, before)
        # Sorted, so that a cycle is named the same way each time.
        cycle = find_cycle(
            {
                node_id: [target for target in (*new_targets.get(node_id, ()), *after(node_id)) if target in suspects]
                for node_id in sorted(suspects)
            }
        )
        if cycle:
            raise CycleError(f"the edges would form a cycle: {show_cycle(cycle)}", nodes=cycle)

    def _left(self, node_id: str, edges: Callable[[str], Iterable[LiveEdge]]) -> list[LiveEdge]:
        """Return those old edges of a node that stay."""
        if node_id not in self._tables.nodes:
            return []
        return [edge for edge in edges(node_id) if edge.id not in self._disconnected]

    def _condition_met(self, edge: Edge) -> bool | None:
        """Evaluate the condition of a new edge that is decided immediately; None for any other edge."""
        source = self._tables.nodes.get(edge.source)
        if edge.condition is None or source is None or source.holds or source.state is not NodeState.COMPLETED:
            return None
        return self._is_met(edge, source)

    # Applying it.

    def _apply(self, machine: StateMachine[LiveNode, LiveEdge]) -> Edited | None:
        """Check the edit as a whole, and apply it; return None if it changes nothing.

        Raises:
            CycleError: The edges would form a cycle.
            GraphTooLarge: The graph would be above a limit.
        """
        tables, changes = self._tables, Changes()
        connected = [edge for edges in self._connected.values() for edge in edges]
        if not (self._added or self._replaced or self._removed or connected or self._disconnected):
            return None
        nodes, edges, size = self._totals()
        check_size(nodes, edges, size)
        self._check_cycles()
        # Before anything changes: a function may raise.
        conditions = [self._condition_met(spec) for spec in connected]
        tables.size = size
        touched = dict[str, None]()
        for edge in self._disconnected.values():
            machine.remove_edge(edge)
            tables.remove_edge(edge)
            touched[edge.target] = None
        for node_id in self._removed:
            machine.forget(node_id)
            tables.remove_node(node_id)
            touched.pop(node_id, None)
        for node in self._added.values():
            tables.add_node(node)
            machine.count_new(node.id)
            touched[node.id] = None
        for node in self._replaced.values():
            tables.replace_node(node)
        for edge, met in zip(tables.add_edges(connected), conditions, strict=True):
            edge.met = met
            machine.add_edge(edge)
            touched[edge.target] = None
        machine.await_edges(touched, changes)
        for source in dict.fromkeys(edge.source for edge in connected):
            machine.decide(tables.node(source), changes)
        machine.settle(touched, changes)
        became_ready = set(changes.ready)
        outdated = [
            node_id
            for node_id in dict.fromkeys((*self._replaced, *touched))
            if node_id not in became_ready and tables.node(node_id).state is NodeState.READY
        ]
        removed = tuple(node_id for node_id in self._removed if node_id not in self._added)
        return Edited(tuple(self._added), tuple(self._replaced), removed, tuple(outdated), changes)
