"""How tasks are accepted: with idempotency keys, and with retry policies.

A task with a retry policy is the first attempt of a graph of one node, which has the task's id. Each further attempt is a task of its own.
The operations run as those of `queries` do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
from sqlalchemy import bindparam, select

from galaxy_trio.daemon.store import statements
from galaxy_trio.daemon.store.graph_documents import encode_graph
from galaxy_trio.daemon.store.graph_records import BY_ID as GRAPH_BY_ID
from galaxy_trio.daemon.store.graph_tasks import read_specs
from galaxy_trio.daemon.store.graphs import add_of_task
from galaxy_trio.daemon.store.queries import (
    NO_ORIGIN,
    IdempotencyConflict,
    WrongState,
    existing,
    ignore,
    insert,
    whole_request,
)
from galaxy_trio.daemon.store.records import RetryPolicy, TaskRecord, TaskRequest
from galaxy_trio.daemon.store.rows import make_record
from galaxy_trio.daemon.store.schema import GRAPHS
from galaxy_trio.events import shortened
from galaxy_trio.graph.model import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_documents import NewGraph

_DIGEST: Final = select(GRAPHS.c.digest).where(GRAPHS.c.id == bindparam("graph_id"))
NODE: Final = "task"
"""The id of the only node of such a graph."""


def add(
    transaction: Transaction,
    request: TaskRequest,
    deliver: Callable[[tuple[TaskRecord, bool]], None] = ignore,
    claimed_by: str | None = None,
) -> tuple[TaskRecord, bool]:
    """Add a new task, `queued`, and free or claimed by a life of a daemon.

    Returns:
        The task, and whether it is new: the same idempotency key returns the first task, whatever its state.

    Raises:
        IdempotencyConflict: The key belongs to a task with a different request.
    """
    record = _insert(transaction, request, claimed_by) or _added_before(transaction, request)
    added = (record, record.id == transaction.new_id)
    transaction.on_commit(partial(deliver, added))
    return added


def accepted(connection: Connection, request: TaskRequest) -> TaskRecord | None:
    """The task that was accepted with this request's idempotency key, or `None`.

    Raises:
        IdempotencyConflict: The key belongs to a task with a different request.
    """
    if request.idempotency_key is None:
        return None
    row = connection.execute(statements.BY_KEY, {"key": request.idempotency_key}).first()
    if row is None:
        return None
    known = make_record(row)
    if not _is_same(connection, known, request):
        raise IdempotencyConflict(
            f"the idempotency key {request.idempotency_key!r} belongs to task {known.id}, which has a different request: use another key"
        )
    return known


def retry(
    transaction: Transaction,
    task_id: str,
    deliver: Callable[[TaskRecord], None] = ignore,
    claimed_by: str | None = None,
) -> TaskRecord:
    """Add a new task, as `add`, with the request of one that has ended, and its retry policy.

    Raises:
        NoSuchTask: There is no such task.
        WrongState: It has not ended.
    """
    known = existing(transaction.connection, task_id)
    if not known.state.ended:
        raise WrongState(f"task {task_id} {known.state.in_words}: only a task that has ended can be retried")
    # The key belongs to the first task.
    request = attrs.evolve(_whole(transaction.connection, known), idempotency_key=None)
    record = _insert(transaction, request, claimed_by, {"retry_of": task_id})
    record = record or existing(transaction.connection, transaction.new_id)
    transaction.on_commit(partial(deliver, record))
    return record


def _added_before(transaction: Transaction, request: TaskRequest) -> TaskRecord:
    """The task for which there was no room in the table: added with the same idempotency key, or by this operation itself.

    Raises:
        IdempotencyConflict: The key belongs to a task with a different request.
    """
    known = accepted(transaction.connection, request)
    return existing(transaction.connection, transaction.new_id) if known is None else known


def _insert(
    transaction: Transaction, request: TaskRequest, claimed_by: str | None, origin: Mapping[str, str] = NO_ORIGIN
) -> TaskRecord | None:
    """Insert a queued task, with its graph if it has a retry policy. Returns `None` if its id, or the idempotency key, is there."""
    policy, task_id = request.policy, transaction.new_id
    if policy is None:
        return insert(transaction, task_id, request, claimed_by, origin)
    record = insert(transaction, task_id, request, claimed_by, {**origin, "graph": task_id, "node": NODE})
    if record is not None:
        add_of_task(transaction, _graph_of(request, policy), record)
    return record


def _graph_of(request: TaskRequest, policy: RetryPolicy) -> NewGraph:
    """The graph of a task with a retry policy."""
    node = Node(
        NODE,
        request.request,
        device=request.device,
        os=request.os,
        capabilities=request.capabilities,
        priority=request.priority,
        timeout=request.timeout,
        retries=policy.retries,
        backoff=policy.backoff,
        retry_lost=policy.retry_lost,
    )
    return encode_graph(Graph([node], name=shortened(request.request)))


def _is_same(connection: Connection, known: TaskRecord, request: TaskRequest) -> bool:
    """Whether a task was accepted with the same request. Of a graph, the digest says so, whatever edits have changed since."""
    if request.policy is None or known.graph is None:
        # A task with a key belongs to a graph only if it has a policy.
        is_alike = request.policy is None and known.graph is None
        return is_alike and attrs.evolve(known.asked, request=whole_request(connection, known.id)) == request
    digest = connection.execute(_DIGEST, {"graph_id": known.graph}).scalar()
    return digest == _graph_of(request, request.policy).digest


def _whole(connection: Connection, record: TaskRecord) -> TaskRequest:
    """What was asked for with a task, in full."""
    policy = None
    if record.graph is not None and record.node is not None:
        graph = connection.execute(GRAPH_BY_ID, {"graph_id": record.graph}).first()
        # An edit may have removed the node, or the graph has been deleted a moment ago with its tasks.
        node = None if graph is None else read_specs(connection, graph.number, [record.node]).get(record.node)
        if node is not None and node.retries:
            policy = RetryPolicy(node.retries, node.backoff, node.retry_lost)
    return attrs.evolve(record.asked, request=whole_request(connection, record.id), policy=policy)
