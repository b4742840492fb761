"""The ends of tasks, which the graphs of these tasks follow in the same transaction.

A takeover only ends the tasks of a dead daemon, and some nodes wait before another attempt: `sweep` lets their graphs follow.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from galaxy_trio.daemon.store import queries, statements
from galaxy_trio.daemon.store.committer import Refused
from galaxy_trio.daemon.store.graph_records import LOCK_BY_ID, LOCK_BY_TASK, make_graph_record
from galaxy_trio.daemon.store.graph_steps import GraphStep, prepare
from galaxy_trio.daemon.store.queries import ignore
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.rows import requirement_columns
from galaxy_trio.daemon.store.schema import GRAPH_NODES, GRAPHS, IS_READY, TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.records import Requirement, TaskRecord

_HAS_ENDED: Final = GRAPH_NODES.c.not_before.is_(None) & TASKS.c.state.in_(
    [state.value for state in TaskState if state.ended]
)
_GRAPH_ID: Final = select(GRAPHS.c.id).where(GRAPHS.c.number == GRAPH_NODES.c.graph).scalar_subquery().label("graph_id")
_DELAYED: Final = (
    select(_GRAPH_ID, GRAPH_NODES.c.id)
    .where(GRAPH_NODES.c.not_before <= bindparam("now"))
    .order_by(GRAPH_NODES.c.not_before)
)
_ENDED: Final = (
    select(_GRAPH_ID, GRAPH_NODES.c.id, TASKS.c.id.label("task"), TASKS.c.state)
    .join(TASKS, TASKS.c.id == GRAPH_NODES.c.task)
    .where(IS_READY, _HAS_ENDED)
    .order_by(GRAPH_NODES.c.graph, TASKS.c.ended, TASKS.c.number)
)
_IS_CANCELLED: Final = select(GRAPH_NODES.c.cancelled).where(
    GRAPH_NODES.c.graph == bindparam("of_graph"), GRAPH_NODES.c.id == bindparam("node_id")
)
_OF_GRAPH: Final = GRAPH_NODES.c.graph == bindparam("of_graph")
NOTHING_MET: Final[Mapping[tuple[str, str], bool]] = MappingProxyType({})


class NodeStopped(Refused):
    """The node of a task was cancelled while the task ran."""


def finish(
    transaction: Transaction,
    task_id: str,
    attempt: str,
    claimed_by: str,
    state: TaskState,
    *,
    error: str | None = None,
    result: str | None = None,
    met: Mapping[tuple[str, str], bool] = NOTHING_MET,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
) -> TaskRecord:
    """Change a task to a final state, as `queries.finish` does, and let its graph follow.

    Args:
        transaction: What it runs in.
        task_id: The task.
        attempt: The token of the attempt.
        claimed_by: The life of a daemon.
        state: The final state.
        error: The reason why it did not complete.
        result: The result as JSON in ASCII.
        met: Which conditions on its result are met, by the id of the task and the condition as JSON.
        deliver: Called with the tasks that are added or cancelled because of this, on commit.

    Raises:
        ConditionsNeeded: Conditions on its result must be evaluated first.
        WrongState: It has ended already, another attempt runs it, or this life has not claimed it.
    """
    step = _prepared(transaction, task_id, state, met)
    record = queries.finish(transaction, task_id, attempt, claimed_by, state, error=error, result=result)
    if step is not None:
        step.write(deliver)
    return record


def mark_queued(transaction: Transaction, task_id: str, attempt: str) -> TaskRecord:
    """Change a task from `running` back to `queued`, as `queries.mark_queued` does, unless its node was cancelled while it ran.

    Raises:
        NodeStopped: Its node was cancelled. The attempt is to end, although it has not run.
        WrongState: The attempt does not run it.
    """
    connection = transaction.connection
    graph = connection.execute(LOCK_BY_TASK, {"task_id": task_id}).first()
    # What cancels a node locks its graph, too: it finds the task running before this, or queued after it.
    if (
        graph is not None
        and connection.execute(_IS_CANCELLED, {"of_graph": graph.number, "node_id": graph.node}).scalar()
    ):
        raise NodeStopped(f"the node of task {task_id} was cancelled")
    return queries.mark_queued(transaction, task_id, attempt)


def cancel_queued(
    transaction: Transaction,
    task_id: str,
    deliver: Callable[[TaskRecord], None] = ignore,
    deliver_others: Callable[[list[TaskRecord]], None] = ignore,
) -> tuple[TaskRecord, bool]:
    """Change a task from `queued` to `cancelled`, as `queries.cancel_queued` does, and let its graph follow."""
    step = _prepared(transaction, task_id, TaskState.CANCELLED, NOTHING_MET)
    record, is_changed = queries.cancel_queued(transaction, task_id, deliver)
    if step is not None and is_changed:
        step.write(deliver_others)
    return record, is_changed


def fail_queued(
    transaction: Transaction,
    requirement: Requirement,
    error: str,
    limit: int,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
    deliver_others: Callable[[list[TaskRecord]], None] = ignore,
) -> list[TaskRecord]:
    """Change the first queued tasks with a requirement to `failed`, as `queries.fail_queued` does, and let their graphs follow."""
    connection = transaction.connection
    values = requirement_columns(requirement) | {"limit": limit}
    graphs = connection.execute(statements.GRAPHS_TO_FAIL, values).scalars().all()
    locked = {graph: record for graph in graphs if (record := _lock(connection, graph)) is not None}
    failed = queries.fail_queued(transaction, requirement, error, limit, deliver, list(locked))
    ends: dict[str, list[tuple[str, str, TaskState]]] = {}
    for task in failed:
        if task.graph is not None and task.node is not None:
            ends.setdefault(task.graph, []).append((task.node, task.id, task.state))
    for graph, of_graph in ends.items():
        prepare(transaction, locked[graph], NOTHING_MET, partial(_follow_all, of_graph)).write(deliver_others)
    return failed


def _prepared(
    transaction: Transaction, task_id: str, state: TaskState, met: Mapping[tuple[str, str], bool]
) -> GraphStep | None:
    """The step of a task's graph that follows from its end; `None` if it is of no graph, or was followed."""
    graph = transaction.connection.execute(LOCK_BY_TASK, {"task_id": task_id}).first()
    if graph is None:
        return None
    step = prepare(transaction, make_graph_record(graph), met, partial(_follow_all, [(graph.node, task_id, state)]))
    return step if step.has_changed else None


def _follow_all(ends: list[tuple[str, str, TaskState]], step: GraphStep) -> None:
    for node_id, task_id, state in ends:
        step.follow(node_id, task_id, state)


def _lock(connection: Connection, graph_id: str) -> GraphRecord | None:
    row = connection.execute(LOCK_BY_ID, {"graph_id": graph_id}).first()
    return None if row is None else make_graph_record(row)


def find_delayed(connection: Connection, now: datetime) -> str | None:
    """The id of a graph with a node whose next attempt may begin; `None` if no node has one."""
    return connection.execute(_DELAYED.limit(1), {"now": now.timestamp()}).scalar()


def find_unfollowed(connection: Connection) -> str | None:
    """The id of a graph that has not followed the end of a task, as after a takeover; `None` if all have.

    It looks at all nodes that are ready.
    """
    return connection.execute(_ENDED.limit(1)).scalar()


def sweep(
    transaction: Transaction,
    graph_id: str,
    *,
    met: Mapping[tuple[str, str], bool] = NOTHING_MET,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
) -> bool:
    """Let a graph follow the ends of tasks that it has not followed, and try nodes again whose time has come.

    Any daemon may call this at any time: what another one has done is not done again.

    Args:
        transaction: What it runs in.
        graph_id: The graph; see `find_delayed` and `find_unfollowed`.
        met: As that of `finish`.
        deliver: Called with the tasks that are added or cancelled because of this, on commit.

    Returns:
        Whether there was anything to do.

    Raises:
        ConditionsNeeded: Conditions on results must be evaluated first.
    """
    connection = transaction.connection
    record = _lock(connection, graph_id)
    if record is None:
        return False
    number = record.number

    def follow(step: GraphStep) -> None:
        values = {"of_graph": number, "now": transaction.now.timestamp()}
        for row in connection.execute(_ENDED.where(_OF_GRAPH), values).all():
            step.follow(row.id, row.task, TaskState(row.state))
        for delayed in connection.execute(_DELAYED.where(_OF_GRAPH), values).all():
            step.try_delayed(delayed.id)

    step = prepare(transaction, record, met, follow)
    if step.has_changed:
        step.write(deliver)
    return step.has_changed
