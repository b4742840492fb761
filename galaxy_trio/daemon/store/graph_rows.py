"""The rows of a graph that a step reads and may change. Each is read when the state machine asks for it, and what changed is written."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs
from sqlalchemy import bindparam, delete, insert, select, update

from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import GRAPH_EDGES, GRAPH_NODES, TASKS
from galaxy_trio.errors import NoSuchNode
from galaxy_trio.graph.model import When
from galaxy_trio.graph.state_machine import EdgeRow, NodeRow, NodeState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from sqlalchemy import Connection, Executable, Row, Select

_MAX_SEPARATE: Final = 64
"""Nodes whose edges are read one by one. After that, all rows of the graph are read together, which takes less time."""
_CHUNK: Final = 500
"""Rows that are named in one statement."""
T = TypeVar("T")

_COLUMNS: Final = (
    GRAPH_NODES.c.id,
    GRAPH_NODES.c.number,
    GRAPH_NODES.c.state,
    GRAPH_NODES.c.undecided,
    GRAPH_NODES.c.attempt,
    GRAPH_NODES.c.task,
    GRAPH_NODES.c.not_before,
    GRAPH_NODES.c.cancelled,
    GRAPH_NODES.c.ended,
    TASKS.c.state.label("task_state"),
    TASKS.c.started,
)
_NODES: Final = (
    select(*_COLUMNS)
    .select_from(GRAPH_NODES.outerjoin(TASKS, TASKS.c.id == GRAPH_NODES.c.task))
    .where(GRAPH_NODES.c.graph == bindparam("of_graph"))
)
_NODE: Final = _NODES.where(GRAPH_NODES.c.id == bindparam("node_id"))
_ALL_NODES: Final = _NODES.order_by(GRAPH_NODES.c.number)
_EDGE_COLUMNS: Final = (
    GRAPH_EDGES.c.id.label("edge_id"),
    GRAPH_EDGES.c.number.label("edge_number"),
    GRAPH_EDGES.c.source,
    GRAPH_EDGES.c.target,
    GRAPH_EDGES.c.when,
    GRAPH_EDGES.c.condition,
    GRAPH_EDGES.c.holds,
)
_OF_GRAPH: Final = GRAPH_EDGES.c.graph == bindparam("of_graph")
_EDGES: Final = select(*_EDGE_COLUMNS).where(_OF_GRAPH).order_by(GRAPH_EDGES.c.number)
_INCOMING: Final = _EDGES.where(GRAPH_EDGES.c.target == bindparam("node_id"))
_TARGET: Final = (GRAPH_NODES.c.graph == GRAPH_EDGES.c.graph) & (GRAPH_NODES.c.id == GRAPH_EDGES.c.target)
_OUTGOING: Final = cast(
    "Select[Any]",
    select(*_EDGE_COLUMNS, *_COLUMNS)
    .select_from(GRAPH_EDGES.join(GRAPH_NODES, _TARGET).outerjoin(TASKS, TASKS.c.id == GRAPH_NODES.c.task))
    .where(_OF_GRAPH, GRAPH_EDGES.c.source == bindparam("node_id"))
    .order_by(GRAPH_EDGES.c.number),
)
"""The edges from a node, with their targets."""
_THIS_NODE: Final = (GRAPH_NODES.c.graph == bindparam("of_graph"), GRAPH_NODES.c.id == bindparam("node_id"))
_THIS_EDGE: Final = (GRAPH_EDGES.c.graph == bindparam("of_graph"), GRAPH_EDGES.c.id == bindparam("edge_id"))
_CHANGED: Final = ("state", "undecided", "attempt", "task", "not_before", "cancelled", "ended")
_UPDATE_NODE: Final = (
    update(GRAPH_NODES).where(*_THIS_NODE).values({name: bindparam(f"to_{name}") for name in _CHANGED})
)
_UPDATE_SPEC: Final = update(GRAPH_NODES).where(*_THIS_NODE).values(spec=bindparam("to_spec"))
_THESE_EDGES: Final = (
    GRAPH_EDGES.c.graph == bindparam("of_graph"),
    GRAPH_EDGES.c.id.in_(bindparam("edge_ids", expanding=True)),
)
_UPDATE_EDGES: Final = {
    value: update(GRAPH_EDGES).where(*_THESE_EDGES).values(holds=value) for value in (True, False, None)
}
_DELETE_NODE: Final = delete(GRAPH_NODES).where(*_THIS_NODE)
_DELETE_EDGE: Final = delete(GRAPH_EDGES).where(*_THIS_EDGE)


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Pass on items in lists that are short enough for a statement."""
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


@attrs.define(eq=False, kw_only=True)
class StoredNode(NodeRow):
    """A node with what its row has besides its state.

    Attributes:
        number: Its place in the order of the nodes.
        task: The id of the latest attempt's task.
        repeats: The id of the task of the attempt before it, if that is forgotten in this step.
        not_before: The time before which it is not tried again, in epoch seconds; `None` unless it waits for that.
        cancelled: Whether it is to be stopped.
        ended: When it ended, in epoch seconds.
        queued_task: The id of its task that was queued when this was read, and is not to end by itself.
        renewed: Whether it needs another task, because what the task says has changed.
    """

    number: int
    task: str | None = None
    repeats: str | None = None
    not_before: float | None = None
    cancelled: bool = False
    ended: float | None = None
    queued_task: str | None = None
    renewed: bool = False
    _on_disk: tuple[object, ...] | None = attrs.field(default=None, init=False)

    def stored(self) -> tuple[object, ...]:
        """The values of `_CHANGED` columns: whether the node runs, its task says."""
        runs = self.state is NodeState.RUNNING
        state = NodeState.READY if runs else self.state
        attempt = self.attempt - runs
        return state.value, self.undecided, attempt, self.task, self.not_before, self.cancelled, self.ended

    @property
    def has_moved(self) -> bool:
        """Whether its state differs from the one on disk."""
        return self._on_disk is None or self.stored()[0] != self._on_disk[0]


@attrs.define(eq=False, kw_only=True)
class StoredEdge(EdgeRow):
    """An edge with what its row has besides its decision.

    Attributes:
        number: Its place in the order of the edges.
        condition: Its condition as JSON.
    """

    number: int
    condition: str | None = None
    _on_disk: bool | None = attrs.field(default=None, init=False)

    @property
    def was_decided(self) -> bool:
        """Whether it is decided on disk."""
        return self._on_disk is not None


class StoredTables:
    """A graph's rows, for the state machine."""

    def __init__(self, connection: Connection, graph: int) -> None:
        self._connection = connection
        self._graph = graph
        self.nodes: dict[str, StoredNode] = {}
        """The nodes that were read or added, by id."""
        self.edges: dict[str, StoredEdge] = {}
        """The edges that were read or added, by id."""
        self.removed: list[StoredNode] = []
        """The nodes that were removed."""
        self._removed_edges: list[StoredEdge] = []
        self._outgoing: dict[str, list[StoredEdge]] = {}
        self._incoming: dict[str, list[StoredEdge]] = {}
        self._new_nodes: dict[str, str] = {}
        self._new_edges: dict[str, str | None] = {}
        self._new_specs: dict[str, str] = {}
        self._has_all = False

    def node(self, node_id: str) -> StoredNode:
        """Return a node.

        Raises:
            NoSuchNode: There is no node with this id.
        """
        if node_id not in self.nodes and not self._has_all:
            self._read_nodes(_NODE, node_id)
        try:
            return self.nodes[node_id]
        except KeyError:
            raise NoSuchNode(f"there is no node {node_id!r:.100} in this graph") from None

    def outgoing(self, node_id: str) -> Collection[StoredEdge]:
        """Return the edges from a node, and read their targets."""
        self._read_all_if_many()
        if self._has_all:
            return self._outgoing.get(node_id, ())
        if node_id not in self._outgoing:
            self._outgoing[node_id] = self._read_outgoing(node_id)
        return self._outgoing[node_id]

    def incoming(self, node_id: str) -> Collection[StoredEdge]:
        """Return the edges to a node."""
        self._read_all_if_many()
        if self._has_all:
            return self._incoming.get(node_id, ())
        if node_id not in self._incoming:
            self._incoming[node_id] = self._read_edges(_INCOMING, node_id)
        return self._incoming[node_id]

    def read_all(self) -> None:
        """Read all rows. Those that were read before keep what has changed."""
        if self._has_all:
            return
        self._read_nodes(_ALL_NODES)
        self._read_edges(_EDGES)
        self._has_all = True
        self.nodes = {node.id: node for node in sorted(self.nodes.values(), key=_number)}
        self.edges = {edge.id: edge for edge in sorted(self.edges.values(), key=_number)}
        self._outgoing, self._incoming = {}, {}
        for edge in self.edges.values():
            self._outgoing.setdefault(edge.source, []).append(edge)
            self._incoming.setdefault(edge.target, []).append(edge)

    def _read_all_if_many(self) -> None:
        if len(self._outgoing) + len(self._incoming) >= _MAX_SEPARATE:
            self.read_all()

    def _read_nodes(self, statement: Executable, node_id: str | None = None) -> None:
        for row in self._connection.execute(statement, {"of_graph": self._graph, "node_id": node_id}):
            self._take_node(row)

    def _read_edges(self, statement: Executable, node_id: str | None = None) -> list[StoredEdge]:
        rows = self._connection.execute(statement, {"of_graph": self._graph, "node_id": node_id})
        return [self._take_edge(row) for row in rows]

    def _read_outgoing(self, node_id: str) -> list[StoredEdge]:
        edges: list[StoredEdge] = []
        for row in self._connection.execute(_OUTGOING, {"of_graph": self._graph, "node_id": node_id}):
            edges.append(self._take_edge(row))
            self._take_node(row)
        return edges

    def _take_node(self, row: Row[Any]) -> None:  # Any: the values of any column
        if row.id not in self.nodes:
            self.nodes[row.id] = _node_of(row)

    def _take_edge(self, row: Row[Any]) -> StoredEdge:  # Any: as above
        edge = self.edges.get(row.edge_id)
        if edge is None:
            edge = self.edges[row.edge_id] = StoredEdge(
                row.edge_id,
                row.source,
                row.target,
                When(row.when),
                row.holds,
                number=row.edge_number,
                condition=row.condition,
            )
            edge._on_disk = row.holds
        return edge

    # Additions and removals are the last changes of a step: the edges of nodes are not looked up after them.

    def add_node(self, node: StoredNode, spec: str) -> None:
        """Add a node with its data as JSON."""
        self.nodes[node.id] = node
        self._new_nodes[node.id] = spec

    def add_edge(self, edge: StoredEdge, metadata: str | None) -> None:
        """Add an edge with its metadata as JSON."""
        self.edges[edge.id] = edge
        self._new_edges[edge.id] = metadata

    def replace_node(self, node_id: str, spec: str) -> None:
        """Replace the data of a node."""
        self._new_specs[node_id] = spec

    def remove_node(self, node_id: str) -> None:
        """Remove a node."""
        self.removed.append(self.nodes.pop(node_id))

    def remove_edge(self, edge_id: str) -> None:
        """Remove an edge."""
        self._removed_edges.append(self.edges.pop(edge_id))

    def begin_empty(self) -> None:
        """Report that the graph is new, so that there is nothing to read."""
        self._has_all = True

    @property
    def has_changed(self) -> bool:
        """Whether a row that was read has changed."""
        return any(node.stored() != node._on_disk for node in self.nodes.values())

    def write(self) -> None:
        """Write what has changed."""
        self._execute(_DELETE_EDGE, [{"edge_id": edge.id} for edge in self._removed_edges])
        self._execute(_DELETE_NODE, [{"node_id": node.id} for node in self.removed])
        new_nodes = [(self.nodes[node_id], spec) for node_id, spec in self._new_nodes.items()]
        rows = [
            {"graph": self._graph, "id": node.id, "number": node.number, "spec": spec}
            | dict(zip(_CHANGED, node.stored(), strict=True))
            for node, spec in new_nodes
        ]
        if rows:
            self._connection.execute(insert(GRAPH_NODES), rows)
        new_edges = [(self.edges[edge_id], metadata) for edge_id, metadata in self._new_edges.items()]
        if new_edges:
            edge_rows = [_edge_row(self._graph, edge, metadata) for edge, metadata in new_edges]
            self._connection.execute(insert(GRAPH_EDGES), edge_rows)
        self._execute(
            _UPDATE_SPEC, [{"node_id": node_id, "to_spec": spec} for node_id, spec in self._new_specs.items()]
        )
        changed = [
            {"node_id": node.id} | {f"to_{name}": value for name, value in zip(_CHANGED, node.stored(), strict=True)}
            for node in self.nodes.values()
            if node.id not in self._new_nodes and node.stored() != node._on_disk
        ]
        self._execute(_UPDATE_NODE, changed)
        decided = [
            edge for edge in self.edges.values() if edge.id not in self._new_edges and edge.holds is not edge._on_disk
        ]
        for value, statement in _UPDATE_EDGES.items():
            for chunk in chunks(edge.id for edge in decided if edge.holds is value):
                self._connection.execute(statement, {"of_graph": self._graph, "edge_ids": chunk})

    def _execute(self, statement: Executable, rows: list[dict[str, object]]) -> None:
        if rows:
            values: list[Mapping[str, object]] = [{"of_graph": self._graph} | row for row in rows]
            self._connection.execute(statement, values if len(values) > 1 else values[0])


def _number(row: StoredNode | StoredEdge) -> int:
    return row.number


def _node_of(row: Row[Any]) -> StoredNode:  # Any: the values of any column
    node = StoredNode(
        row.id,
        NodeState(row.state),
        row.undecided,
        row.attempt,
        number=row.number,
        task=row.task,
        not_before=row.not_before,
        cancelled=row.cancelled,
        ended=row.ended,
    )
    node._on_disk = node.stored()
    if node.state is NodeState.READY and node.not_before is None:
        if row.task_state == TaskState.QUEUED.value:
            node.queued_task = node.task
        elif row.started is not None:
            # Its task runs, or has ended a moment ago.
            node.state = NodeState.RUNNING
            node.attempt += 1
    return node


def _edge_row(graph: int, edge: StoredEdge, metadata: str | None) -> dict[str, object]:
    return {
        "graph": graph,
        "id": edge.id,
        "number": edge.number,
        "source": edge.source,
        "target": edge.target,
        "when": edge.when.value,
        "condition": edge.condition,
        "metadata": metadata,
        "holds": edge.holds,
    }
