"""What follows from the end of a node costs as much in a large graph as in a small one."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import Connection, Engine, event, func, select

from galaxy_trio.daemon.store import graph_ends, graph_rows, graph_tasks, graphs
from galaxy_trio.daemon.store.graph_documents import encode_graph
from galaxy_trio.daemon.store.graph_snapshots import snapshot, whole
from galaxy_trio.daemon.store.records import MAX_ERROR, MAX_EXCERPT, TaskState
from galaxy_trio.daemon.store.schema import TASKS
from galaxy_trio.graph.model import Edge, Graph, Node, When
from galaxy_trio.graph.state_machine import NodeState
from tests.daemon.support.lives import new_engine, transaction_on
from tests.daemon.support.stored_graphs import begin_in, chain, task_ids_in
from tests.support.memory import traced_memory

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon

MIB: Final = 2**20


@pytest.fixture
def engine(database: Location) -> Generator[Engine]:
    with new_engine(database) as engine:
        yield engine


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the nodes and edges whose rows are read."""
    read: list[str] = []

    def node(node_id: str, *args: object, **more: object) -> graph_rows.StoredNode:
        read.append(node_id)
        return graph_rows_node(node_id, *args, **more)  # type: ignore[arg-type]

    def edge(edge_id: str, *args: object, **more: object) -> graph_rows.StoredEdge:
        read.append(edge_id)
        return graph_rows_edge(edge_id, *args, **more)  # type: ignore[arg-type]

    graph_rows_node, graph_rows_edge = graph_rows.StoredNode, graph_rows.StoredEdge
    monkeypatch.setattr(graph_rows, "StoredNode", node)
    monkeypatch.setattr(graph_rows, "StoredEdge", edge)
    return read


@contextmanager
def _counted(engine: Engine) -> Generator[list[str]]:
    """The statements inside the block."""
    statements: list[str] = []

    def execute(_connection: Connection, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", execute)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", execute)


def _end(engine: Engine, graph: Graph, node_id: str, state: TaskState = TaskState.COMPLETED) -> list[str]:
    """Add a graph, and end a node of it. Returns the statements of the end."""
    with engine.begin() as connection:
        record, _ = graphs.add(transaction_on(connection), encode_graph(graph))
        begin_in(connection, record.id, node_id)
    with _counted(engine) as statements, engine.begin() as connection:
        task_id = task_ids_in(connection, record.id)[node_id]
        del statements[:]
        graph_ends.finish(transaction_on(connection), task_id, task_id, "life", state)
    with engine.connect() as connection:
        assert snapshot(connection, record.id).node(node_id).state.value == state.value
    return statements


def _fan(number: int) -> Graph:
    names = [f"n{index}" for index in range(number)]
    return Graph([Node("a", "x"), *(Node(name, "x") for name in names)], [Edge("a", name) for name in names])


def _pairs(number: int) -> Graph:
    nodes = [Node(f"{name}{index}", "x") for index in range(number) for name in "ab"]
    return Graph(nodes, [Edge(f"a{index}", f"b{index}") for index in range(number)])


def test_end_reads_only_the_node_and_its_edges_and_their_targets(engine: Engine, rows: list[str]) -> None:
    few = _end(engine, _pairs(1), "a0")
    assert rows == ["a0", "edge-1", "b0"]
    rows.clear()
    many = _end(engine, _pairs(300), "a0")
    assert rows == ["a0", "edge-1", "b0"]
    assert len(few) == len(many) <= 10


def test_node_that_waits_for_many_is_counted_down_without_a_look_at_the_others(engine: Engine, rows: list[str]) -> None:
    names = [f"n{number}" for number in range(300)]
    graph = Graph([Node(name, "x") for name in (*names, "last")], [Edge(name, "last") for name in names])
    statements = _end(engine, graph, "n7")
    assert rows == ["n7", "edge-8", "last"]
    assert len(statements) <= 7


def test_many_nodes_that_become_ready_are_read_and_written_together(engine: Engine) -> None:
    few, many = _end(engine, _fan(10), "a"), _end(engine, _fan(200), "a")
    assert len(many) == len(few)


def test_texts_of_nodes_that_become_ready_together_are_in_memory_a_few_at_a_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert graph_tasks._MAX_IN_MEMORY == 8 * MIB
    monkeypatch.setattr(graph_tasks, "_MAX_IN_MEMORY", MIB)
    with engine.begin() as connection:
        record, _ = graphs.add(transaction_on(connection), encode_graph(_fan(400)))
        task_id = begin_in(connection, record.id, "a")
    with engine.begin() as connection, traced_memory() as memory:
        result = json.dumps("x" * 60_000)
        graph_ends.finish(transaction_on(connection), task_id, task_id, "life", TaskState.COMPLETED, result=result)
        peak = memory.peak
    assert peak < 8 * MIB
    with engine.connect() as connection:
        sizes = connection.execute(select(func.length(TASKS.c.request)).where(TASKS.c.node != "a")).scalars().all()
    assert len(sizes) == 400
    assert min(sizes) > 60_000


def test_many_queued_tasks_are_taken_back_together(engine: Engine) -> None:
    def cancel(number: int) -> list[str]:
        with engine.begin() as connection:
            graph = Graph([Node(f"n{index}", "x") for index in range(number)])
            record, _ = graphs.add(transaction_on(connection), encode_graph(graph))
        with _counted(engine) as statements, engine.begin() as connection:
            graphs.cancel(transaction_on(connection), record.id)
        return statements

    assert len(cancel(200)) == len(cancel(10))


def test_long_way_of_a_skip_is_read_as_a_whole(engine: Engine) -> None:
    names = [f"n{number}" for number in range(400)]
    assert len(_end(engine, chain(*names), "n0", TaskState.FAILED)) < 200


def test_retry_of_a_node_that_skipped_many_reads_them_as_a_whole(engine: Engine) -> None:
    names = [f"n{number}" for number in range(100)]
    edges = [Edge(*pair) for pair in pairwise(names)] + [Edge(names[0], name) for name in names[2:]]
    with engine.begin() as connection:
        record, _ = graphs.add(
            transaction_on(connection), encode_graph(Graph([Node(name, "x") for name in names], edges))
        )
        task_id = begin_in(connection, record.id, "n0")
        graph_ends.finish(transaction_on(connection), task_id, task_id, "life", TaskState.FAILED)
    with _counted(engine) as statements, engine.begin() as connection:
        graphs.retry_node(transaction_on(connection), record.id, "n0")
    assert len(statements) < 100
    with engine.connect() as connection:
        states = [node.state.value for node in snapshot(connection, record.id).nodes.values()]
        assert states == ["ready", *["waiting"] * 99]


def test_all_nodes_of_a_graph_that_is_cancelled_are_read_together(engine: Engine) -> None:
    names = [f"n{number}" for number in range(400)]
    with engine.begin() as connection:
        record, _ = graphs.add(transaction_on(connection), encode_graph(chain(*names)))
    with _counted(engine) as statements, engine.begin() as connection:
        graphs.cancel(transaction_on(connection), record.id)
    assert len(statements) <= 15
    with engine.connect() as connection:
        states = {node.state for node in snapshot(connection, record.id).nodes.values()}
        assert states == {NodeState.CANCELLED}


def test_whole_graph_is_read_with_one_statement_for_each_kind_of_its_rows(engine: Engine) -> None:
    with engine.begin() as connection:
        record, _ = graphs.add(transaction_on(connection), encode_graph(chain("a", "b", "c")))
    with engine.connect() as connection, _counted(engine) as statements:
        shown, found = whole(connection, record.id)
    assert (shown.id, [node.id for node in found.graph.nodes], len(found.graph.edges)) == (
        record.id,
        ["a", "b", "c"],
        2,
    )
    # The graph, the tasks that run, the nodes with their tasks, the edges, and the graph's metadata.
    assert sum(statement.startswith("SELECT") for statement in statements) == 5


def test_whole_graph_has_the_beginning_of_each_error(engine: Engine) -> None:
    with engine.begin() as connection:
        record, _ = graphs.add(transaction_on(connection), encode_graph(chain("a", "b")))
        task_id = begin_in(connection, record.id, "a")
        error = "ä" * (MAX_ERROR // 2)
        graph_ends.finish(transaction_on(connection), task_id, task_id, "life", TaskState.FAILED, error=error)
    with engine.connect() as connection:
        assert snapshot(connection, record.id).node("a").error == "ä" * (MAX_EXCERPT // 2)


@pytest.mark.parametrize("state", [TaskState.COMPLETED, TaskState.FAILED])
def test_results_of_all_nodes_before_a_node_are_read_together(engine: Engine, state: TaskState) -> None:
    def join(number: int) -> list[str]:
        names = [f"n{index}" for index in range(number)]
        nodes = [Node(name, "x") for name in (*names, "last")]
        graph = Graph(nodes, [Edge(name, "last", When.END) for name in names])
        with engine.begin() as connection:
            record, _ = graphs.add(transaction_on(connection), encode_graph(graph))
        of_last: list[str] = []
        for name in names:
            with _counted(engine) as statements, engine.begin() as connection:
                task_id = begin_in(connection, record.id, name)
                finish = partial(graph_ends.finish, transaction_on(connection), task_id, task_id, "life", state)
                finish(result='"it works"') if state is TaskState.COMPLETED else finish(error="it broke")
            of_last = statements
        with engine.connect() as connection:
            last = connection.execute(select(TASKS.c.request).where(TASKS.c.node == "last", TASKS.c.graph == record.id))
            assert last.scalar_one().count("it works" if state is TaskState.COMPLETED else "it broke") == number
        return of_last

    assert len(join(50)) == len(join(3))
