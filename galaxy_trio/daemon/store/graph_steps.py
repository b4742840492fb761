"""A step of a graph in a transaction: what it changes is computed in memory, and written together with the tasks that follow from it.

Whatever changes a graph locks its row first, and tasks after that. Nothing is written before all is computed, so that a step that is
refused has written nothing. A queued task that the step takes back may have begun since it was read: then the step is computed again.
"""

from __future__ import annotations

import random
import uuid
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import attrs
from sqlalchemy import bindparam, select, update

from galaxy_trio.daemon.store import queries
from galaxy_trio.daemon.store.committer import Refused
from galaxy_trio.daemon.store.graph_records import counts_text, short_graph
from galaxy_trio.daemon.store.graph_rows import StoredEdge, StoredNode, StoredTables, chunks
from galaxy_trio.daemon.store.graph_tasks import TaskOfNode, add_tasks, read_specs
from galaxy_trio.daemon.store.rows import seconds_of
from galaxy_trio.daemon.store.schema import GRAPHS, IS_QUEUED, TASKS
from galaxy_trio.errors import NoSuchNode
from galaxy_trio.graph.backoff import longest_wait
from galaxy_trio.graph.snapshot import GraphState, state_of
from galaxy_trio.graph.state_machine import ENDED, UNSTARTED, Changes, NodeState, StateMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.records import TaskRecord, TaskState

GRAPH: Final = "graph"
"""The kind of the event of a graph that has changed."""
MAX_SHOWN: Final = 50
"""Nodes that an event of a graph names."""
_QUEUED: Final = (
    select(TASKS.c.id)
    .where(TASKS.c.id.in_(bindparam("task_ids", expanding=True)), IS_QUEUED)
    .order_by(TASKS.c.number)
    .with_for_update()
)
_CHANGED: Final = ("state", "version", "size", "counts", "ended", "cancelled")
_UPDATE: Final = (
    update(GRAPHS)
    .where(GRAPHS.c.number == bindparam("of_number"))
    .values({name: bindparam(f"to_{name}") for name in _CHANGED})
)


class ConditionsNeeded(Refused):
    """The operation needs conditions of edges evaluated: evaluate them, and repeat it with what was found.

    Attributes:
        conditions: The id of a task that completed, and a condition on its result as JSON.
    """

    def __init__(self, conditions: Iterable[tuple[str, str]]) -> None:
        super().__init__("conditions of edges must be evaluated")
        self.conditions: tuple[tuple[str, str], ...] = tuple(conditions)


class GraphStep:
    """Changes a graph, whose row is locked, in memory; `write` writes it.

    Args:
        transaction: What it runs in.
        record: The graph.
        met: Which conditions are met, by the id of the task on whose result they are, and the condition as JSON.
        is_new: Whether nothing of it is on disk besides its row.
    """

    def __init__(
        self,
        transaction: Transaction,
        record: GraphRecord,
        met: Mapping[tuple[str, str], bool],
        *,
        is_new: bool = False,
    ) -> None:
        self.transaction: Transaction = transaction
        self.record: GraphRecord = record
        self.tables: StoredTables = StoredTables(transaction.connection, record.number)
        if is_new:
            self.tables.begin_empty()
        self.machine: StateMachine[StoredNode, StoredEdge] = StateMachine(self.tables, self._is_met)
        self.moved: dict[NodeState, int] = self.machine.moved
        """How many more nodes are in each state than before."""
        self._met = met
        self._needed: dict[tuple[str, str], None] = {}
        # In the order in which they became ready.
        self._ready: dict[str, None] = {}

    @property
    def has_changed(self) -> bool:
        """Whether there is something to write."""
        return self.tables.has_changed or bool(self._ready)

    def is_met(self, task_id: str, condition: str) -> bool:
        """Whether a condition is met by the result of a task. If that is not known, `prepare` refuses the step."""
        key = task_id, condition
        if key not in self._met:
            self._needed[key] = None
        return self._met.get(key, False)

    def _is_met(self, edge: StoredEdge) -> bool:
        task_id, condition = self.tables.node(edge.source).task, edge.condition
        # What has no task has no result.
        return task_id is not None and condition is not None and self.is_met(task_id, condition)

    def follow(self, node_id: str, task_id: str, state: TaskState) -> None:
        """Record the end of a node's task: the node ends, or is tried again. Does nothing if that is recorded, or the task is not its last.

        A task that ended before it began is not tried again.
        """
        try:
            node = self.tables.node(node_id)
        except NoSuchNode:
            return
        if (
            node.task != task_id
            or node.not_before is not None
            or node.state not in (NodeState.READY, NodeState.RUNNING)
        ):
            return
        node.queued_task = None
        end = NodeState(state.value)
        if node.cancelled and end is not NodeState.COMPLETED:
            end = NodeState.CANCELLED
        may_repeat = node.state is NodeState.RUNNING and end in (NodeState.FAILED, NodeState.LOST)
        if not (may_repeat and self._try_again(node, end)):
            self.end([node_id], end)

    def _try_again(self, node: StoredNode, end: NodeState) -> bool:
        """Let a node have another attempt, after a while, if it may have one."""
        spec = read_specs(self.transaction.connection, self.record.number, [node.id])[node.id]
        if node.attempt > spec.retries or (end is NodeState.LOST and not spec.retry_lost):
            return False
        self.machine.make_ready(node.id)
        wait = random.uniform(0, longest_wait(spec.backoff, node.attempt))  # noqa: S311  # jitter is no secret
        if wait > 0:
            node.not_before = self.transaction.now.timestamp() + wait
        else:
            self.renew([node.id])
        return True

    def end(self, node_ids: list[str], state: NodeState) -> None:
        """End nodes, none of which starts another one of them, and let what follows happen."""
        self.apply(self.machine.end_all(node_ids, state))
        self._renew_after(node_ids)

    def apply(self, changes: Changes) -> None:
        """Let nodes that became ready have tasks."""
        self.renew(changes.ready)
        self._renew_after(node_id for node_id, _ in changes.skipped)

    def _renew_after(self, node_ids: Iterable[str]) -> None:
        """Nodes that ran before a retry keep their edges from nodes that end again. Those that are ready show these ends."""
        for node_id in node_ids:
            repeated = [edge.target for edge in self.tables.outgoing(node_id) if edge.was_decided]
            self.renew(target for target in repeated if self.tables.node(target).state is NodeState.READY)

    def renew(self, node_ids: Iterable[str]) -> None:
        """Let nodes that are ready have new tasks, in place of those that are queued."""
        for node_id in node_ids:
            self.tables.node(node_id).renewed = True
            self._ready[node_id] = None

    def try_delayed(self, node_id: str) -> None:
        """Let a node that waits for its next attempt have its task now."""
        self.tables.node(node_id).not_before = None
        self.renew([node_id])

    def lock_withdrawn(self) -> bool:
        """Lock the queued tasks that are taken back. Returns whether none of them has begun."""
        found = 0
        withdrawn = self._withdrawn()
        for chunk in chunks(withdrawn):
            found += len(self.transaction.connection.execute(_QUEUED, {"task_ids": chunk}).all())
        return found == len(withdrawn)

    def check_conditions(self) -> None:
        """Raise if the step needs conditions that were not evaluated.

        Raises:
            ConditionsNeeded: See there.
        """
        if self._needed:
            raise ConditionsNeeded(self._needed)

    def _withdrawn(self) -> list[str]:
        """The ids of the queued tasks that must not run."""
        kept = [node for node in self.tables.nodes.values() if node.renewed or node.state is not NodeState.READY]
        return [node.queued_task for node in (*self.tables.removed, *kept) if node.queued_task is not None]

    def write(self, deliver: Callable[[list[TaskRecord]], None]) -> GraphRecord:
        """Write what has changed, and publish it.

        Args:
            deliver: Called with the tasks that were added or cancelled, on commit.

        Returns:
            The graph.
        """
        withdrawn = self._withdrawn()
        now = self.transaction.now.timestamp()
        changed = {node.id: node.state for node in self.tables.nodes.values() if node.has_moved}
        tasks: dict[str, TaskOfNode] = {}
        for node_id in self._ready:
            node = self.tables.nodes.get(node_id)
            if node is not None and node.state is NodeState.READY and node.not_before is None:
                tasks[node_id] = TaskOfNode(uuid.uuid4().hex, node.task or node.repeats)
                node.task = tasks[node_id].id
        for node in self.tables.nodes.values():
            if (node.state in ENDED) != (node.ended is not None):
                node.ended = now if node.state in ENDED else None
            if node.state not in UNSTARTED:
                node.not_before = None
            if node.state is not NodeState.RUNNING:
                node.cancelled = False
        self.record = self._counted()
        self.tables.write()
        self._write_record()
        records: list[TaskRecord] = []
        for chunk in chunks(withdrawn):
            records += queries.cancel_all_queued(self.transaction, chunk)
        records += add_tasks(self.transaction, self.record, tasks)
        self._publish(changed)
        if records:
            self.transaction.on_commit(partial(deliver, records))
        return self.record

    def _counted(self) -> GraphRecord:
        counts = {state: count + self.moved[state] for state, count in self.record.counts.items()}
        # Whether a node runs, its task says.
        counts[NodeState.READY] += counts[NodeState.RUNNING]
        counts[NodeState.RUNNING] = 0
        state = state_of(counts, cancelled=self.record.cancelled is not None)
        ended = None if state is GraphState.RUNNING else self.record.ended or self.transaction.now
        return attrs.evolve(self.record, counts=counts, state=state, ended=ended)

    def _write_record(self) -> None:
        record = self.record
        values = (
            record.state.value,
            record.version,
            record.size,
            counts_text(record.counts),
            seconds_of(record.ended),
            seconds_of(record.cancelled),
        )
        changed = {f"to_{name}": value for name, value in zip(_CHANGED, values, strict=True)}
        self.transaction.connection.execute(_UPDATE, {"of_number": record.number} | changed)

    def _publish(self, changed: Mapping[str, NodeState]) -> None:
        shown = {node_id: state.value for node_id, state in islice(changed.items(), MAX_SHOWN)}
        more = len(changed) - len(shown)
        self.transaction.publish(GRAPH, short_graph(self.record) | {"changed": shown, "more_changed": more})


def prepare(
    transaction: Transaction,
    record: GraphRecord,
    met: Mapping[tuple[str, str], bool],
    change: Callable[[GraphStep], None],
) -> GraphStep:
    """Compute a step of a graph, whose row is locked, and lock the tasks that it takes back. Nothing is written.

    Raises:
        ConditionsNeeded: The step needs conditions that were not evaluated.
    """
    while True:
        step = GraphStep(transaction, record, met)
        change(step)
        step.check_conditions()
        if step.lock_withdrawn():
            return step
