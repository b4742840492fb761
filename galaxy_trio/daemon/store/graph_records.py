"""The daemon's records of graphs, as plain data of limited size."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping  # attrs reads annotations at run time
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
from sqlalchemy import bindparam, func, select

from galaxy_trio.daemon.store.digest import is_equal
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.rows import text_beginning, time_of
from galaxy_trio.daemon.store.schema import GRAPHS, TASKS
from galaxy_trio.daemon.store.statements import utf_8
from galaxy_trio.events import MAX_TEXT, shortened_if_any
from galaxy_trio.graph.snapshot import GraphState
from galaxy_trio.graph.state_machine import NodeState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row, Select

_COLUMNS: Final = (
    GRAPHS.c.number,
    GRAPHS.c.id,
    # One character more than is shown, of up to four bytes each.
    func.substr(utf_8(GRAPHS.c.name), 1, 4 * (MAX_TEXT + 1)).label("name"),
    GRAPHS.c.state,
    GRAPHS.c.version,
    GRAPHS.c.counts,
    GRAPHS.c.created,
    GRAPHS.c.ended,
    GRAPHS.c.cancelled,
    GRAPHS.c.idempotency_key,
    GRAPHS.c.digest,
    GRAPHS.c.size,
)
DELETED: Final = "deleted"
"""The state in the row of a graph that is being deleted: there is no such graph any more."""
IS_THERE: Final = GRAPHS.c.state != DELETED
RECORDS: Final = cast("Select[Any]", select(*_COLUMNS).where(IS_THERE))
BY_ID: Final = RECORDS.where(GRAPHS.c.id == bindparam("graph_id"))
BY_KEY: Final = RECORDS.where(is_equal(GRAPHS.c.idempotency_key, "key"))
_OF_RUNNING_TASKS: Final = select(TASKS.c.graph).where(TASKS.c.state == TaskState.RUNNING.value)
LOCK_BY_ID: Final = BY_ID.with_for_update()
LOCK_BY_TASK: Final = cast(
    "Select[Any]",
    select(*_COLUMNS, TASKS.c.node)
    .join(TASKS, TASKS.c.graph == GRAPHS.c.id)
    .where(TASKS.c.id == bindparam("task_id"), IS_THERE)
    .with_for_update(of=GRAPHS),
)
"""Locks the graph of a task, if it has one. The row has the task's node as well."""


@attrs.frozen
class GraphRecord:
    """A graph as it is on disk, without its nodes and edges. Times are in UTC.

    Attributes:
        number: Its place in the order of acceptance.
        id: 32 hexadecimal digits.
        name: A name for people; its beginning if it is read from disk.
        state: Its state.
        version: The number of its edits.
        counts: The number of its nodes in each state. Those that run count as ready on disk and in events: their tasks say that they run.
        created: When it was accepted.
        ended: When it ended; `None` while it runs.
        cancelled: When it was cancelled; `None` if it was not.
        idempotency_key: Chosen by the client: submitting again with the same key returns the same graph.
        digest: The digest of the graph as it was accepted.
        size: Bytes of memory of its texts and data.
    """

    number: int
    id: str
    name: str | None
    state: GraphState
    version: int
    counts: Mapping[NodeState, int]
    created: datetime
    ended: datetime | None
    cancelled: datetime | None
    idempotency_key: str | None
    digest: str
    size: int


def make_graph_record(row: Row[Any]) -> GraphRecord:  # Any: the values of any column
    """Make a record from the row of a graph."""
    return GraphRecord(
        row.number,
        row.id,
        None if row.name is None else text_beginning(row.name),
        GraphState(row.state),
        row.version,
        counts_from(row.counts),
        datetime.fromtimestamp(row.created, UTC),
        time_of(row.ended),
        time_of(row.cancelled),
        row.idempotency_key,
        row.digest,
        row.size,
    )


def with_running(connection: Connection, records: Iterable[GraphRecord]) -> list[GraphRecord]:
    """Count the nodes of graphs that run as running. All running tasks are read, of which there are as many as slots."""
    graphs = list(records)
    if all(graph.ended is not None for graph in graphs):
        return graphs
    running = Counter(connection.execute(_OF_RUNNING_TASKS).scalars())
    return [attrs.evolve(graph, counts=_counted(graph.counts, running[graph.id])) for graph in graphs]


def _counted(counts: Mapping[NodeState, int], running: int) -> Mapping[NodeState, int]:
    begun = min(running, counts[NodeState.READY])
    moved = {NodeState.READY: counts[NodeState.READY] - begun, NodeState.RUNNING: counts[NodeState.RUNNING] + begun}
    return MappingProxyType({**counts, **moved})


def counts_text(counts: Mapping[NodeState, int]) -> str:
    """The value of the column that holds the number of nodes in each state."""
    return json.dumps({state.value: count for state, count in counts.items() if count})


def counts_from(text: str) -> Mapping[NodeState, int]:
    """The number of nodes in each state that a column's value holds."""
    counts: dict[str, int] = json.loads(text)
    return MappingProxyType({state: counts.get(state.value, 0) for state in NodeState})


def short_graph(record: GraphRecord) -> dict[str, object]:
    """Represent a graph without its nodes and edges as JSON, for lists, responses and events. A long name is cut."""
    return {
        "id": record.id,
        "number": record.number,
        "name": shortened_if_any(record.name),
        "state": record.state.value,
        "version": record.version,
        "nodes": {state.value: count for state, count in record.counts.items() if count},
        "created": record.created.isoformat(),
        "ended": None if record.ended is None else record.ended.isoformat(),
        "cancelled": None if record.cancelled is None else record.cancelled.isoformat(),
        "idempotency_key": record.idempotency_key,
    }
