"""The tasks of nodes that are ready: what they say, and the results of the nodes before them that are part of it."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
from sqlalchemy import LargeBinary, bindparam, func, select

from galaxy_trio._json_size import json_size
from galaxy_trio.daemon.store.graph_documents import nodes_from
from galaxy_trio.daemon.store.graph_rows import chunks
from galaxy_trio.daemon.store.pieces import PIECE
from galaxy_trio.daemon.store.queries import insert_all
from galaxy_trio.daemon.store.records import TaskRequest
from galaxy_trio.daemon.store.result_beginnings import MOST_ESCAPED, MOST_LOST, parse_beginning
from galaxy_trio.daemon.store.schema import GRAPH_EDGES, GRAPH_NODES, RESULTS, TASKS
from galaxy_trio.daemon.task_limits import MAX_TIMEOUT
from galaxy_trio.graph.node_requests import MAX_INPUTS, make_request, share_of
from galaxy_trio.graph.snapshot import NodeResult
from galaxy_trio.graph.state_machine import NodeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Row, Select

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.graph.model import Node
    from galaxy_trio.messages import JSON

CANCELLED: Final = "it was cancelled"
"""The error of a node that was cancelled, whatever its last task says."""
_MAX_IN_MEMORY: Final = 8 * 2**20
"""Bytes of memory of the requests of new tasks, above which those that are in memory are written."""
_MAX_KNOWN: Final = 64
"""Results whose beginnings are in memory."""
_SPECS: Final = select(GRAPH_NODES.c.id, GRAPH_NODES.c.spec).where(
    GRAPH_NODES.c.graph == bindparam("of_graph"), GRAPH_NODES.c.id.in_(bindparam("node_ids", expanding=True))
)
_BEFORE: Final = cast(
    "Select[Any]",
    select(
        GRAPH_EDGES.c.target,
        GRAPH_NODES.c.id,
        GRAPH_NODES.c.state,
        GRAPH_NODES.c.not_before,
        TASKS.c.number,
        TASKS.c.started,
        TASKS.c.result_size,
        TASKS.c.error.is_not(None).label("has_error"),
    )
    .select_from(
        GRAPH_EDGES.join(
            GRAPH_NODES, (GRAPH_NODES.c.graph == GRAPH_EDGES.c.graph) & (GRAPH_NODES.c.id == GRAPH_EDGES.c.source)
        ).outerjoin(TASKS, TASKS.c.id == GRAPH_NODES.c.task)
    )
    .where(
        GRAPH_EDGES.c.graph == bindparam("of_graph"), GRAPH_EDGES.c.target.in_(bindparam("node_ids", expanding=True))
    )
    .order_by(GRAPH_EDGES.c.number),
)
_ERRORS: Final = select(TASKS.c.number, TASKS.c.error).where(TASKS.c.number.in_(bindparam("numbers", expanding=True)))
_BEGINNINGS: Final = (
    select(RESULTS.c.task, func.substr(RESULTS.c.body, 1, bindparam("size"), type_=LargeBinary))
    .where(RESULTS.c.task.in_(bindparam("numbers", expanding=True)), RESULTS.c.part <= bindparam("last"))
    .order_by(RESULTS.c.task, RESULTS.c.part)
)


@attrs.frozen
class TaskOfNode:
    """A task that a node needs.

    Attributes:
        id: The task's id.
        repeats: The id of the node's task before it; `None` for the first one.
    """

    id: str
    repeats: str | None


def read_specs(connection: Connection, graph: int, node_ids: Iterable[str]) -> dict[str, Node]:
    """Read what was given for some nodes of a graph."""
    specs: dict[str, Node] = {}
    for chunk in chunks(node_ids):
        rows = connection.execute(_SPECS, {"of_graph": graph, "node_ids": chunk})
        specs |= nodes_from(row.spec for row in rows)
    return specs


def state_in_row(row: Row[Any]) -> NodeState:  # Any: the values of any column
    """The state of a node: whether it runs, its task says."""
    state = NodeState(row.state)
    runs = state is NodeState.READY and row.not_before is None and row.started is not None
    return NodeState.RUNNING if runs else state


def add_tasks(transaction: Transaction, graph: GraphRecord, tasks: Mapping[str, TaskOfNode]) -> list[TaskRecord]:
    """Add the tasks of nodes, free.

    Args:
        transaction: What it runs in.
        graph: Their graph.
        tasks: The tasks by the ids of the nodes, in the order in which they are added.
    """
    connection = transaction.connection
    inputs = _Inputs(connection)
    records: list[TaskRecord] = []
    for chunk in chunks(tasks):
        specs = read_specs(connection, graph.number, chunk)
        before: dict[str, dict[str, Row[Any]]] = {node_id: {} for node_id in chunk}  # Any: the values of any column
        for row in connection.execute(_BEFORE, {"of_graph": graph.number, "node_ids": chunk}):
            before[row.target][row.id] = row
        new: list[tuple[str, TaskRequest, dict[str, str]]] = []
        size = 0
        for node_id in chunk:
            spec = specs[node_id]
            asked = TaskRequest(
                make_request(spec, inputs.read(before[node_id])),
                spec.device,
                spec.os,
                tuple(sorted(spec.capabilities)),
                min(spec.timeout, MAX_TIMEOUT),
                priority=spec.priority,
            )
            task = tasks[node_id]
            origin = {"graph": graph.id, "node": node_id} | ({"retry_of": task.repeats} if task.repeats else {})
            new.append((task.id, asked, origin))
            size += json_size(asked.request, _MAX_IN_MEMORY)
            if size > _MAX_IN_MEMORY:
                records += insert_all(transaction, new)
                new, size = [], 0
        if new:
            records += insert_all(transaction, new)
    return records


class _Inputs:
    """Reads the results that the texts of nodes show, each as far as one of the texts shows it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[int, int], NodeResult] = {}

    def read(self, before: Mapping[str, Row[Any]]) -> dict[str, NodeResult]:  # Any: the values of any column
        """What is known of the nodes before a node. Of those that its text does not show, nothing is read."""
        if not before:
            return {}
        share = share_of(len(before))
        shown = list(islice(before.values(), MAX_INPUTS // share))
        self._read_unknown([row for row in shown if _has_inputs(row)], share)
        results = dict.fromkeys(before, NodeResult())
        return results | {row.id: self._known_of(row, share) for row in shown}

    def _known_of(self, row: Row[Any], share: int) -> NodeResult:  # Any: as above
        state = state_in_row(row)
        if not _has_inputs(row):
            return NodeResult(state, error=CANCELLED if state is NodeState.CANCELLED else None)
        return attrs.evolve(self._known[row.number, share], state=state)

    def _read_unknown(self, rows: list[Row[Any]], share: int) -> None:  # Any: as above
        """Read the results and errors of nodes' tasks that are not known, of all of them together."""
        unknown = [row for row in rows if (row.number, share) not in self._known]
        if unknown and len(self._known) + len(unknown) > _MAX_KNOWN:
            self._known.clear()
            unknown = rows
        errors: dict[int, str] = {}
        if failed := [row.number for row in unknown if row.has_error]:
            found = self._connection.execute(_ERRORS, {"numbers": failed})
            errors = {row.number: row.error for row in found}
        texts: dict[int, bytes] = {}
        if with_result := [row.number for row in unknown if row.result_size is not None]:
            size = MOST_ESCAPED * share + MOST_LOST
            values = {"numbers": with_result, "size": min(size, PIECE), "last": (size - 1) // PIECE}
            for number, piece in self._connection.execute(_BEGINNINGS, values):
                texts[number] = texts.get(number, b"") + piece
        for row in unknown:
            result = _parsed(texts.get(row.number, b"").decode("ascii"), row.result_size)
            self._known[row.number, share] = NodeResult(state_in_row(row), result=result, error=errors.get(row.number))


def _has_inputs(row: Row[Any]) -> bool:  # Any: the values of any column
    """Whether the text of a node after this one shows what this one's task has left."""
    return row.number is not None and state_in_row(row) is not NodeState.CANCELLED


def _parsed(text: str, size: int | None) -> JSON:
    """A result, of which the text is perhaps the beginning."""
    if size is None:
        return None
    if len(text) < size:
        return parse_beginning(text)
    return cast("JSON", json.loads(text))
