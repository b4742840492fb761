"""A stored graph with the state and the results of its nodes, as a graph in memory shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import bindparam, func, select

from galaxy_trio.daemon.store.graph_documents import EDGES, edges_from, nodes_from
from galaxy_trio.daemon.store.graph_tasks import CANCELLED, state_in_row
from galaxy_trio.daemon.store.graphs import GraphRefused, existing
from galaxy_trio.daemon.store.records import MAX_EXCERPT
from galaxy_trio.daemon.store.rows import text_beginning, time_of
from galaxy_trio.daemon.store.schema import GRAPH_NODES, GRAPHS, RESULTS, TASKS
from galaxy_trio.daemon.store.statements import utf_8
from galaxy_trio.errors import GraphTooLarge
from galaxy_trio.graph.model import Graph
from galaxy_trio.graph.snapshot import GraphSnapshot, NodeResult
from galaxy_trio.graph.state_machine import ENDED, NodeState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row, Select

    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.messages import JSON

MAX_RESULTS: Final = 4 * 2**20
"""Bytes of JSON of the results in a snapshot: they may take forty times as much memory while they are read."""
_NODES: Final = cast(
    "Select[Any]",
    select(
        GRAPH_NODES.c.id,
        GRAPH_NODES.c.spec,
        GRAPH_NODES.c.state,
        GRAPH_NODES.c.attempt,
        GRAPH_NODES.c.not_before,
        GRAPH_NODES.c.ended,
        TASKS.c.id.label("task"),
        TASKS.c.number,
        TASKS.c.device,
        TASKS.c.started,
        func.substr(utf_8(TASKS.c.error), 1, MAX_EXCERPT).label("error"),
        TASKS.c.result_size,
    )
    .select_from(GRAPH_NODES.outerjoin(TASKS, TASKS.c.id == GRAPH_NODES.c.task))
    .where(GRAPH_NODES.c.graph == bindparam("of_graph"))
    .order_by(GRAPH_NODES.c.number),
)
_METADATA: Final = select(GRAPHS.c.name, GRAPHS.c.metadata).where(GRAPHS.c.number == bindparam("of_graph"))
_PIECES: Final = select(RESULTS.c.body).where(RESULTS.c.task == bindparam("of_number")).order_by(RESULTS.c.part)


def snapshot(connection: Connection, graph_id: str, *, with_results: bool = True) -> GraphSnapshot:
    """Read a graph with all that is known of its nodes; see `whole`."""
    return whole(connection, graph_id, with_results=with_results)[1]


def whole(connection: Connection, graph_id: str, *, with_results: bool = True) -> tuple[GraphRecord, GraphSnapshot]:
    """Read a graph, and what is known of its nodes; of an error, the first `MAX_EXCERPT` bytes.

    Args:
        connection: All statements on it see one state of the database.
        graph_id: The graph.
        with_results: Whether to read the results of the nodes.

    Raises:
        NoSuchGraph: There is no such graph.
        GraphRefused: The results are above `MAX_RESULTS` together.
    """
    record = existing(connection, graph_id)
    values = {"of_graph": record.number}
    nodes = connection.execute(_NODES, values).all()
    if with_results:
        _check_size(nodes)
    results = {row.id: _result(connection, row, with_results=with_results) for row in nodes}
    edges = connection.execute(EDGES, values).all()
    decisions = {row.id: row.holds for row in edges if row.holds is not None}
    given = connection.execute(_METADATA, values).one()
    graph = Graph(
        nodes_from(row.spec for row in nodes).values(),
        edges_from(edges),
        name=given.name,
        metadata=json.loads(given.metadata),
    )
    return record, GraphSnapshot(graph, record.version, results, decisions)


def _check_size(rows: Sequence[Row[Any]]) -> None:  # Any: the values of any column
    size = sum(row.result_size or 0 for row in rows)
    if size > MAX_RESULTS:
        raise GraphRefused(
            GraphTooLarge(
                f"the results of the graph's nodes have {size:,} bytes, and at most {MAX_RESULTS:,} are read together: "
                "read them one by one"
            )
        )


def _result(connection: Connection, row: Row[Any], *, with_results: bool) -> NodeResult:  # Any: as above
    state = state_in_row(row)
    error = None if row.error is None else text_beginning(row.error)
    result: JSON = None
    if with_results and row.result_size is not None:
        pieces = connection.execute(_PIECES, {"of_number": row.number}).scalars()
        result = cast("JSON", json.loads(b"".join(pieces)))
    return NodeResult(
        state,
        row.attempt + (state is NodeState.RUNNING),
        result,
        CANCELLED if state is NodeState.CANCELLED else error,
        row.task,
        row.device,
        time_of(row.started),
        time_of(row.ended) if state in ENDED else None,
    )
