"""What PostgreSQL can interleave: changes of the same graph by two daemons, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from galaxy_trio.daemon.store import graph_ends, graphs
from galaxy_trio.daemon.store.committer import Batch, Committer, Transaction, Write
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.graph_documents import encode_graph
from galaxy_trio.daemon.store.graph_edits import edit
from galaxy_trio.daemon.store.graph_snapshots import snapshot
from galaxy_trio.daemon.store.graphs import GraphRefused
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import GRAPHS, TASKS
from galaxy_trio.errors import NotEditable, VersionConflict
from galaxy_trio.graph.model import Edge, Graph, Node, When
from galaxy_trio.graph.snapshot import GraphState
from tests.daemon.support.lives import NOW, in_waiting_transaction, new_engine, transaction_on, wait_until_blocked
from tests.daemon.support.stored_graphs import begin_in, chain, task_ids_in

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import ThreadPoolExecutor

    from sqlalchemy import Connection, Engine

    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.location import PostgresqlLocation

pytestmark = pytest.mark.daemon


@pytest.fixture
def engine(location: PostgresqlLocation) -> Generator[Engine]:
    with new_engine(location) as engine:
        yield engine


def _add(engine: Engine, graph: Graph, *begun: str) -> str:
    """Add a graph, and begin the tasks of some of its nodes."""
    with engine.begin() as connection:
        record, _ = graphs.add(transaction_on(connection), encode_graph(graph))
        for node_id in begun:
            begin_in(connection, record.id, node_id)
    return record.id


def _end(connection: Connection, graph_id: str, node_id: str) -> None:
    task_id = task_ids_in(connection, graph_id)[node_id]
    graph_ends.finish(transaction_on(connection), task_id, task_id, "life", TaskState.COMPLETED)


def _states(engine: Engine, graph_id: str) -> dict[str, str]:
    with engine.connect() as connection:
        return {node_id: node.state.value for node_id, node in snapshot(connection, graph_id).nodes.items()}


def _queued(engine: Engine) -> list[str | None]:
    """The nodes of all queued tasks."""
    with engine.connect() as connection:
        query = select(TASKS.c.node).where(TASKS.c.state == TaskState.QUEUED.value).order_by(TASKS.c.number)
        return list(connection.execute(query).scalars())


def _join() -> Graph:
    nodes = [Node(name, name) for name in "abc"]
    return Graph(nodes, [Edge("a", "c"), Edge("b", "c")])


def test_two_nodes_that_end_at_the_same_time_start_the_node_that_waits_for_both_once(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    graph_id = _add(engine, _join(), "a", "b")
    with engine.begin() as connection:
        _end(connection, graph_id, "a")
        ended = in_waiting_transaction(threads, engine, lambda other: _end(other, graph_id, "b"))
    ended.result()
    assert _states(engine, graph_id) == {"a": "completed", "b": "completed", "c": "ready"}
    assert _queued(engine) == ["c"]


def test_edit_that_waits_for_the_end_of_a_node_sees_what_followed_from_it(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    graph_id = _add(engine, chain("a", "b", "c"), "a")

    def remove(other: Connection) -> GraphRecord:
        return edit(transaction_on(other), graph_id, lambda edit: edit.remove("b"))

    with engine.begin() as connection:
        _end(connection, graph_id, "a")
        edited = in_waiting_transaction(threads, engine, remove)
    assert edited.result().version == 1
    assert _states(engine, graph_id) == {"a": "completed", "c": "ready"}
    assert _queued(engine) == ["c"]


def test_end_of_a_node_that_waits_for_an_edit_starts_the_new_nodes(engine: Engine, threads: ThreadPoolExecutor) -> None:
    graph_id = _add(engine, chain("a", "b"), "a")
    with engine.begin() as connection:
        edit(transaction_on(connection), graph_id, lambda edit: edit.add(Node("c", "c"), after=["a"]))
        ended = in_waiting_transaction(threads, engine, lambda other: _end(other, graph_id, "a"))
    ended.result()
    assert _states(engine, graph_id) == {"a": "completed", "b": "ready", "c": "ready"}
    assert _queued(engine) == ["b", "c"]


def test_node_that_completes_while_its_graph_is_cancelled_starts_nothing(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    graph_id = _add(engine, Graph(chain("a", "b").nodes, [Edge("a", "b", When.END)]), "a")
    with engine.begin() as connection:
        _, running = graphs.cancel(transaction_on(connection), graph_id)
        assert running == [task_ids_in(connection, graph_id)["a"]]
        ended = in_waiting_transaction(threads, engine, lambda other: _end(other, graph_id, "a"))
    ended.result()
    assert _states(engine, graph_id) == {"a": "completed", "b": "cancelled"}
    assert _queued(engine) == []
    with engine.connect() as connection:
        assert graphs.existing(connection, graph_id).state is GraphState.CANCELLED


def test_cancellation_that_waits_for_the_end_of_a_node_cancels_what_followed_from_it(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    graph_id = _add(engine, chain("a", "b"), "a")
    with engine.begin() as connection:
        _end(connection, graph_id, "a")
        cancelled = in_waiting_transaction(
            threads, engine, lambda other: graphs.cancel(transaction_on(other), graph_id)
        )
    assert cancelled.result()[1] == []
    assert _states(engine, graph_id) == {"a": "completed", "b": "cancelled"}
    assert _queued(engine) == []


def test_of_two_edits_of_the_same_version_one_is_refused_with_the_new_version(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    graph_id = _add(engine, chain("a", "b", "c"))

    def replace(connection: Connection, request: str) -> int:
        return edit(transaction_on(connection), graph_id, lambda edit: edit.replace(Node("c", request)), 0).version

    with engine.begin() as connection:
        assert replace(connection, "first") == 1
        refused = in_waiting_transaction(threads, engine, lambda other: replace(other, "second"))
    with pytest.raises(GraphRefused) as refusal:
        refused.result()
    assert isinstance(refusal.value.error, VersionConflict)
    assert refusal.value.error.version == 1
    with engine.connect() as connection:
        assert snapshot(connection, graph_id).graph.nodes[2].request == "first"


def _replace(connection: Connection, graph_id: str) -> None:
    edit(transaction_on(connection), graph_id, lambda edit: edit.replace(Node("a", "other")))


def test_edit_of_a_node_that_is_being_begun_is_refused(engine: Engine, threads: ThreadPoolExecutor) -> None:
    graph_id = _add(engine, chain("a"))
    with engine.begin() as connection:
        begin_in(connection, graph_id, "a")
        refused = in_waiting_transaction(threads, engine, lambda other: _replace(other, graph_id))
    with pytest.raises(GraphRefused) as refusal:
        refused.result()
    assert isinstance(refusal.value.error, NotEditable)
    assert _states(engine, graph_id) == {"a": "running"}


def test_node_that_is_being_begun_when_its_graph_is_cancelled_is_stopped(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    graph_id = _add(engine, chain("a", "b"))
    with engine.begin() as connection:
        begin_in(connection, graph_id, "a")
        cancelled = in_waiting_transaction(
            threads, engine, lambda other: graphs.cancel(transaction_on(other), graph_id)
        )
    with engine.connect() as connection:
        assert cancelled.result()[1] == [task_ids_in(connection, graph_id)["a"]]
    assert _states(engine, graph_id) == {"a": "running", "b": "cancelled"}


def _cancel(graph_id: str) -> Write:
    def run(transaction: Transaction) -> None:
        graphs.cancel(transaction, graph_id)

    return Write(run, NOW, only_reads=False, takes=False, changes=graph_id)


def test_operations_of_one_transaction_lock_their_graphs_in_the_order_of_all_transactions(
    engine: Engine, threads: ThreadPoolExecutor, location: PostgresqlLocation
) -> None:
    first, second = sorted(_add(engine, chain("a")) for _ in range(2))
    committer = Committer(engine, "life", database_at(location), lambda _: True)
    with engine.begin() as connection:
        graphs.locked(transaction_on(connection), first)
        committed = threads.submit(committer.commit, Batch([_cancel(second), _cancel(first)]))
        wait_until_blocked(engine)
        # The transaction that waits has not locked it, so it cannot be waited for in turn.
        connection.execute(select(GRAPHS.c.id).where(GRAPHS.c.id == second).with_for_update(nowait=True)).one()
    committed.result()
    assert _states(engine, first) == _states(engine, second) == {"a": "cancelled"}


def test_operations_of_one_transaction_lock_their_graphs_before_tasks(
    engine: Engine, threads: ThreadPoolExecutor, location: PostgresqlLocation
) -> None:
    graph_id = _add(engine, chain("a", "b"))
    committer = Committer(engine, "life", database_at(location), lambda _: True)

    def begin(transaction: Transaction) -> None:
        begin_in(transaction.connection, graph_id, "a")

    batch = Batch([Write(begin, NOW, only_reads=False, takes=False), _cancel(graph_id)])
    with engine.begin() as connection:
        graphs.locked(transaction_on(connection), graph_id)
        committed = threads.submit(committer.commit, batch)
        wait_until_blocked(engine)
        connection.execute(select(TASKS.c.id).where(TASKS.c.graph == graph_id).with_for_update(nowait=True)).one()
    committed.result()
    assert _states(engine, graph_id) == {"a": "running", "b": "cancelled"}


def test_sweeps_of_two_daemons_at_the_same_time_follow_once(engine: Engine, threads: ThreadPoolExecutor) -> None:
    graph_id = _add(engine, chain("a", "b"), "a")
    with engine.begin() as connection:
        connection.execute(update(TASKS).where(TASKS.c.graph == graph_id).values(state="lost"))
    with engine.begin() as connection:
        graph_ends.sweep(transaction_on(connection), graph_id)
        swept = in_waiting_transaction(threads, engine, lambda other: graph_ends.sweep(transaction_on(other), graph_id))
    swept.result()
    assert _states(engine, graph_id) == {"a": "lost", "b": "skipped"}
