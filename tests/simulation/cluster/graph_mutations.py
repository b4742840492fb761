"""Deliberate breakages of graphs in the database, one at a time, which the simulation of clusters must find.

That the row of a graph is locked cannot be broken here: in SQLite, one transaction writes at a time. See
tests/daemon/test_stored_graph_races.py.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import attrs
import trio

from galaxy_trio.daemon.store import graph_edits, graph_ends, graph_steps, graphs
from galaxy_trio.daemon.store.graph_ends import NOTHING_MET
from galaxy_trio.daemon.store.graph_steps import GraphStep
from galaxy_trio.daemon.store.graph_store import GraphStore
from galaxy_trio.daemon.store.graph_tasks import TaskOfNode, add_tasks, read_specs
from galaxy_trio.daemon.store.queries import ignore
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.store import Store
from galaxy_trio.graph.snapshot import GraphState
from tests.simulation.graphs.mutations import decide_an_edge_twice, keep_decisions_on_retry, pass_no_skip_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.graph.model import Node
    from galaxy_trio.graph.state_machine import NodeState
    from tests.simulation.patching import Mutation

    Deliver = Callable[[list[TaskRecord]], None]


def advance_in_another_transaction() -> AbstractContextManager[object]:
    """A graph follows the end of a task in the next transaction."""
    finish = Store.finish

    async def finish_and_sweep(self: Store, *arguments: Any, has_graph: bool = True, **more: Any) -> TaskRecord:
        record = await finish(self, *arguments, has_graph=False, **more)
        if has_graph:
            await self.graphs.sweep()
        return record

    return mock.patch.object(Store, "finish", finish_and_sweep)


async def _do_nothing(*_: object) -> int:
    await trio.lowlevel.checkpoint()
    return 0


def leave_out_the_sweep() -> AbstractContextManager[object]:
    """No daemon lets the graphs of lost tasks follow."""
    return mock.patch.object(GraphStore, "sweep", _do_nothing)


def sweep_twice() -> AbstractContextManager[object]:
    """What a sweep has found is followed again, although the node has another attempt since then."""
    sweep = graph_ends.sweep

    def sweep_again(
        transaction: Transaction,
        graph_id: str,
        *,
        met: Mapping[tuple[str, str], bool] = NOTHING_MET,
        deliver: Deliver = ignore,
    ) -> bool:
        record = graphs.locked(transaction, graph_id)
        values = {"of_graph": record.number}
        rows = transaction.connection.execute(graph_ends._ENDED.where(graph_ends._OF_GRAPH), values).all()
        has_changed = sweep(transaction, graph_id, met=met, deliver=deliver)

        def follow(step: GraphStep) -> None:
            for row in rows:
                node = step.tables.node(row.id)
                node.task, node.not_before = row.task, None
                step.follow(row.id, row.task, TaskState(row.state))

        again = graph_steps.prepare(transaction, graphs.locked(transaction, graph_id), met, follow)
        again.write(deliver)
        return has_changed

    return mock.patch.object(graph_ends, "sweep", sweep_again)


def _with_retry_lost(*, retry_lost: bool) -> AbstractContextManager[object]:
    def read(connection: Connection, graph: int, node_ids: Iterable[str]) -> dict[str, Node]:
        specs = read_specs(connection, graph, node_ids)
        return {node_id: attrs.evolve(spec, retry_lost=retry_lost) for node_id, spec in specs.items()}

    return mock.patch.object(graph_steps, "read_specs", read)


def retry_no_lost_node() -> AbstractContextManager[object]:
    """A node that may run again after an attempt that was lost does not."""
    return _with_retry_lost(retry_lost=False)


def retry_each_lost_node() -> AbstractContextManager[object]:
    """A node that may not run again after an attempt that was lost does."""
    return _with_retry_lost(retry_lost=True)


def never_try_again() -> AbstractContextManager[object]:
    """A node waits for ever for its next attempt."""
    return mock.patch.object(GraphStore, "try_delayed", _do_nothing)


def compare_no_versions() -> AbstractContextManager[object]:
    """An edit of an earlier version of a graph is accepted."""
    edit = graph_edits.edit

    def edit_any(*arguments: Any, version: int | None = None, **more: Any) -> GraphRecord:
        del version
        return edit(*arguments, **more)

    return mock.patch.object(graph_edits, "edit", edit_any)


def add_tasks_twice() -> AbstractContextManager[object]:
    """A node that is ready has two tasks."""

    def add_again(transaction: Transaction, graph: GraphRecord, tasks: Mapping[str, TaskOfNode]) -> list[TaskRecord]:
        others = {node_id: TaskOfNode(uuid.uuid4().hex, None) for node_id in tasks}
        return add_tasks(transaction, graph, tasks) + add_tasks(transaction, graph, others)

    return mock.patch.object(graph_steps, "add_tasks", add_again)


def leave_tasks_of_ended_nodes() -> AbstractContextManager[object]:
    """The queued task of a node that is cancelled, removed or replaced stays."""
    return mock.patch.object(GraphStep, "_withdrawn", return_value=[])


def keep_the_text_of_an_edited_node() -> AbstractContextManager[object]:
    """A queued task keeps its text when its node is replaced, or when other nodes come before it."""
    renew = GraphStep.renew

    def renew_others(self: GraphStep, node_ids: Iterable[str]) -> None:
        renew(self, [node_id for node_id in node_ids if self.tables.node(node_id).queued_task is None])

    return mock.patch.object(GraphStep, "renew", renew_others)


def forget_the_key() -> AbstractContextManager[object]:
    """A graph that is submitted again with the same key is added again."""
    add = graphs.add

    def add_without(
        transaction: Transaction, graph: Any, idempotency_key: str | None = None, deliver: Deliver = ignore
    ) -> tuple[GraphRecord, bool]:
        del idempotency_key
        return add(transaction, graph, None, deliver)

    return mock.patch.object(graphs, "add", add_without)


def publish_no_end() -> AbstractContextManager[object]:
    """The end of a graph is not published."""
    publish = GraphStep._publish

    def publish_others(self: GraphStep, changed: Mapping[str, NodeState]) -> None:
        if self.record.state is GraphState.RUNNING:
            publish(self, changed)

    return mock.patch.object(GraphStep, "_publish", publish_others)


CLUSTER_GRAPH_MUTATIONS: Final[dict[Mutation, int]] = {
    advance_in_another_transaction: 1,
    leave_out_the_sweep: 1,
    sweep_twice: 5,
    retry_no_lost_node: 5,
    retry_each_lost_node: 1,
    never_try_again: 1,
    compare_no_versions: 1,
    add_tasks_twice: 1,
    leave_tasks_of_ended_nodes: 1,
    keep_the_text_of_an_edited_node: 1,
    forget_the_key: 1,
    publish_no_end: 1,
    decide_an_edge_twice: 7,
    pass_no_skip_on: 1,
    keep_decisions_on_retry: 1,
}
"""The breakages, each with a seed that finds it, which is tried first."""
