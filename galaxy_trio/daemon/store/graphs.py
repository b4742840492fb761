"""The operations on graphs as wholes, each as a function that runs in a transaction; `queries` says how these run.

What follows from the end of a node's task is in `graph_ends`, and the edits are in `graph_edits`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
from sqlalchemy import select

from galaxy_trio._nearest import did_you_mean
from galaxy_trio.daemon.store.committer import Refused
from galaxy_trio.daemon.store.events import CANCEL
from galaxy_trio.daemon.store.graph_ends import NOTHING_MET
from galaxy_trio.daemon.store.graph_records import (
    BY_ID,
    BY_KEY,
    IS_THERE,
    LOCK_BY_ID,
    RECORDS,
    GraphRecord,
    counts_text,
    make_graph_record,
    with_running,
)
from galaxy_trio.daemon.store.graph_rows import StoredNode
from galaxy_trio.daemon.store.graph_steps import GraphStep, prepare
from galaxy_trio.daemon.store.queries import IdempotencyConflict, ignore
from galaxy_trio.daemon.store.schema import GRAPHS
from galaxy_trio.daemon.store.statements import insert_if_absent
from galaxy_trio.errors import GraphError
from galaxy_trio.graph.snapshot import GraphState
from galaxy_trio.graph.state_machine import UNSTARTED, Changes, NodeState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_documents import NewGraph
    from galaxy_trio.daemon.store.records import TaskRecord

_NO_COUNTS: Final = dict.fromkeys(NodeState, 0)


class NoSuchGraph(Refused):
    """There is no graph with this id."""


class GraphRefused(Refused):
    """The graph refuses an operation. The cause is one of the graph's own errors.

    Attributes:
        error: The cause.
    """

    def __init__(self, error: GraphError) -> None:
        super().__init__(str(error))
        self.error: GraphError = error


def add(
    transaction: Transaction,
    graph: NewGraph,
    idempotency_key: str | None = None,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
) -> tuple[GraphRecord, bool]:
    """Add a graph, and the tasks of the nodes that wait for no others.

    Args:
        transaction: What it runs in.
        graph: What `encode_graph` has prepared.
        idempotency_key: Chosen by the client: the same key returns the first graph, whatever its state.
        deliver: Called with the new tasks, on commit.

    Returns:
        The graph, and whether it is new.

    Raises:
        IdempotencyConflict: The key belongs to a graph that was another one when it was accepted.
    """
    record = _new_record(transaction, transaction.new_id, graph, idempotency_key)
    step = _begin(transaction, record, graph)
    if step is None:
        return _added_before(transaction, record), False
    for place, (node_id, spec) in enumerate(graph.nodes.items()):
        step.tables.add_node(StoredNode(node_id, number=place), spec)
        step.machine.count_new(node_id)
    for edge, metadata in graph.edges:
        # No node has ended, so that none of them is changed: the graph may be added several times.
        step.tables.add_edge(edge, metadata)
        step.machine.add_edge(edge)
    changes = Changes()
    step.machine.settle(graph.nodes, changes)
    step.apply(changes)
    return step.write(deliver), True


def add_of_task(transaction: Transaction, graph: NewGraph, task: TaskRecord) -> None:
    """Add a graph of one node, whose task was added before in this transaction. It has the task's id."""
    step = _begin(transaction, _new_record(transaction, task.id, graph), graph)
    assert step is not None, "a task with this id would have been there"  # noqa: S101  # a broken promise of the caller
    [(node_id, spec)] = graph.nodes.items()
    step.tables.add_node(StoredNode(node_id, number=0, task=task.id), spec)
    step.machine.count_new(node_id)
    step.machine.settle([node_id], Changes())
    step.write(ignore)


def _new_record(
    transaction: Transaction, graph_id: str, graph: NewGraph, idempotency_key: str | None = None
) -> GraphRecord:
    return GraphRecord(
        0,
        graph_id,
        graph.name,
        GraphState.RUNNING,
        0,
        _NO_COUNTS,
        transaction.now,
        None,
        None,
        idempotency_key,
        graph.digest,
        graph.size,
    )


def _begin(transaction: Transaction, record: GraphRecord, graph: NewGraph) -> GraphStep | None:
    """Insert the row of a graph, whose nodes and edges are to be added. Returns `None` if its id or its key is there."""
    connection = transaction.connection
    values = {
        "id": record.id,
        "name": record.name,
        "state": record.state.value,
        "version": record.version,
        "metadata": graph.metadata,
        "digest": record.digest,
        "size": record.size,
        "counts": counts_text(record.counts),
        "created": record.created.timestamp(),
        "idempotency_key": record.idempotency_key,
    }
    inserted = insert_if_absent(GRAPHS, connection.dialect.name).returning(GRAPHS.c.number)
    number = connection.execute(inserted, values).scalar()
    if number is None:
        return None
    return GraphStep(transaction, attrs.evolve(record, number=number), NOTHING_MET, is_new=True)


def _added_before(transaction: Transaction, record: GraphRecord) -> GraphRecord:
    """The graph for which there was no room in the table: added with the same idempotency key, or by this operation itself."""
    known = accepted(transaction.connection, record.idempotency_key, record.digest)
    return existing(transaction.connection, record.id) if known is None else known


def accepted(connection: Connection, idempotency_key: str | None, digest: str) -> GraphRecord | None:
    """The graph that was accepted with an idempotency key, or `None`.

    Raises:
        IdempotencyConflict: The key belongs to a graph that had another digest when it was accepted.
    """
    if idempotency_key is None:
        return None
    row = connection.execute(BY_KEY, {"key": idempotency_key}).first()
    if row is None:
        return None
    known = make_graph_record(row)
    if known.digest != digest:
        raise IdempotencyConflict(
            f"the idempotency key {idempotency_key!r} belongs to graph {known.id}, which was another one when it was accepted: "
            "use another key"
        )
    return with_running(connection, [known])[0]


def existing(connection: Connection, graph_id: str) -> GraphRecord:
    """A graph.

    Raises:
        NoSuchGraph: There is no such graph.
    """
    row = connection.execute(BY_ID, {"graph_id": graph_id}).first()
    if row is None:
        raise _no_such_graph(connection, graph_id)
    return with_running(connection, [make_graph_record(row)])[0]


def locked(transaction: Transaction, graph_id: str) -> GraphRecord:
    """A graph, which no other transaction changes until the end of this one.

    Raises:
        NoSuchGraph: There is no such graph.
    """
    row = transaction.connection.execute(LOCK_BY_ID, {"graph_id": graph_id}).first()
    if row is None:
        raise _no_such_graph(transaction.connection, graph_id)
    return make_graph_record(row)


def _no_such_graph(connection: Connection, graph_id: str) -> NoSuchGraph:
    latest = connection.execute(
        select(GRAPHS.c.id).where(IS_THERE).order_by(GRAPHS.c.number.desc()).limit(1_000)
    ).scalars()
    return NoSuchGraph(f"there is no graph {graph_id!r:.100}{did_you_mean(graph_id, latest)}")


def page(
    connection: Connection, *, state: GraphState | None = None, limit: int = 100, before: str | None = None
) -> list[GraphRecord]:
    """A page of graphs, the newest first: those in a state, those older than `before`.

    Raises:
        NoSuchGraph: There is no graph with the id `before`, for example because it was deleted.
    """
    query = RECORDS.order_by(GRAPHS.c.number.desc()).limit(limit)
    if state is not None:
        query = query.where(GRAPHS.c.state == state.value)
    if before is not None:
        query = query.where(GRAPHS.c.number < existing(connection, before).number)
    return with_running(connection, map(make_graph_record, connection.execute(query)))


def cancel(
    transaction: Transaction,
    graph_id: str,
    node_id: str | None = None,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
    stop: Callable[[list[str]], None] = ignore,
) -> tuple[GraphRecord, list[str]]:
    """Cancel a graph, or one of its nodes. What has not started ends; what runs ends when its task ends. What has ended stays.

    Args:
        transaction: What it runs in.
        graph_id: The graph.
        node_id: The node; `None` for all.
        deliver: Called with the tasks that were cancelled while they were queued, on commit.
        stop: Called with the ids of the running tasks, on commit. Other daemons are asked to stop them by an event.

    Returns:
        The graph, and the ids of the running tasks.

    Raises:
        NoSuchGraph: There is no such graph.
        GraphRefused: There is no such node.
    """
    record = locked(transaction, graph_id)
    if record.state is not GraphState.RUNNING and node_id is None:
        return record, []
    if node_id is None:
        record = attrs.evolve(record, cancelled=record.cancelled or transaction.now)
    step = prepare(transaction, record, NOTHING_MET, partial(_cancel, node_id))
    running = [
        node.task
        for node in step.tables.nodes.values()
        if node.cancelled and node.task and node.state is NodeState.RUNNING
    ]
    record = step.write(deliver) if node_id is None or step.has_changed else record
    for task_id in running:
        transaction.publish(CANCEL, {"id": task_id})
    transaction.on_commit(partial(stop, running))
    return with_running(transaction.connection, [record])[0], running


def _cancel(node_id: str | None, step: GraphStep) -> None:
    if node_id is None:
        step.tables.read_all()
        nodes = list(step.tables.nodes.values())
    else:
        try:
            nodes = [step.tables.node(node_id)]
        except GraphError as error:
            raise GraphRefused(error) from None
    for node in nodes:
        node.cancelled = node.state is NodeState.RUNNING
    unstarted = [node.id for node in nodes if node.state in UNSTARTED]
    if unstarted:
        step.end(unstarted, NodeState.CANCELLED)


def retry_node(
    transaction: Transaction, graph_id: str, node_id: str, deliver: Callable[[list[TaskRecord]], None] = ignore
) -> GraphRecord:
    """Run a node again that failed, was lost or was cancelled. Nodes that were skipped through it wait again.

    Raises:
        NoSuchGraph: There is no such graph.
        GraphRefused: There is no such node, it has another state, or one of its edges does not hold.
    """
    record = attrs.evolve(locked(transaction, graph_id), cancelled=None)

    def retry(step: GraphStep) -> None:
        try:
            changes = step.machine.retry(node_id)
        except GraphError as error:
            raise GraphRefused(error) from None
        node = step.tables.node(node_id)
        node.repeats, node.task = node.task, None
        step.apply(changes)

    retried = prepare(transaction, record, NOTHING_MET, retry).write(deliver)
    return with_running(transaction.connection, [retried])[0]
