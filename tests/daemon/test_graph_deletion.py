"""The deletion of old graphs, in parts."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from sqlalchemy import func, select

from galaxy_trio.daemon.store import deletion
from galaxy_trio.daemon.store.graph_deletion import delete_part
from galaxy_trio.daemon.store.graphs import NoSuchGraph
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import GRAPH_EDGES, GRAPH_NODES, GRAPHS, TASKS
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.graph.model import Graph, Node
from tests.daemon.support.lives import NOW, open_engine
from tests.daemon.support.stored_graphs import run
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation
    from galaxy_trio.daemon.store.store import Store

pytestmark = pytest.mark.daemon

LATER: Final = NOW + timedelta(days=1)
TABLES: Final = (GRAPHS, GRAPH_NODES, GRAPH_EDGES, TASKS)


def _graph(nodes: int) -> Graph:
    return Graph([Node(f"n{number}", "x") for number in range(nodes)])


async def _add_ended(store: Store, nodes: int, key: str | None = None) -> str:
    graph, _ = await store.graphs.add(_graph(nodes), key)
    for number in range(nodes):
        await run(store, graph.id, f"n{number}", TaskState.COMPLETED, result="1")
    return graph.id


async def _rows(store: Store) -> dict[Table, int]:
    def read(connection: Connection) -> dict[Table, int]:
        return {table: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES}

    return await store.read(read)


@pytest.mark.parametrize(("nodes", "parts"), [(2, [2]), (3, [3, 0]), (7, [3, 3, 1])])
async def test_a_few_tasks_of_a_graph_are_deleted_in_each_transaction(
    nodes: int, parts: list[int], database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "MAX_DELETED", 3)
    async with open_store(database, clock=lambda: NOW) as store:
        await _add_ended(store, nodes)
        delete = partial(delete_part, older_than=LATER, keep=100)
        assert [await store.write(delete) for _ in parts] == parts
        assert await store.write(delete) is None
        assert set((await _rows(store)).values()) == {0}


async def test_graph_that_is_deleted_in_part_is_not_there_and_the_next_daemon_deletes_the_rest(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "MAX_DELETED", 2)
    async with open_store(database, clock=lambda: NOW) as store:
        graph_id = await _add_ended(store, 5, "key")
        assert await store.write(partial(delete_part, older_than=LATER, keep=100)) == 2
    async with open_store(database, clock=lambda: NOW) as store:
        assert await store.graphs.page() == []
        for refused in (
            lambda: store.graphs.existing(graph_id),
            lambda: store.graphs.snapshot(graph_id),
            lambda: store.graphs.cancel(graph_id),
            lambda: store.graphs.retry(graph_id, "n0"),
            lambda: store.graphs.edit(graph_id, lambda edit: edit.add(Node("new", "x"))),
        ):
            with pytest.raises(NoSuchGraph, match=r"there is no graph '\w+'$"):
                await refused()
        # Its key is free.
        again, is_new = await store.graphs.add(_graph(5), "key")
        assert (again.id == graph_id, is_new) == (False, True)
        # The time for which graphs are kept may have become longer.
        assert await store.delete_old(NOW, 100) == 3
        assert await _rows(store) == {GRAPHS: 1, GRAPH_NODES: 5, GRAPH_EDGES: 0, TASKS: 5}


async def test_graphs_without_a_task_are_kept_up_to_the_same_number(database: Location) -> None:
    async with open_store(database, clock=lambda: NOW) as store:
        with_task = await _add_ended(store, 1)
        empty = [(await store.graphs.add(Graph()))[0].id for _ in range(5)]
        running, _ = await store.graphs.add(Graph([Node("a", "a")]))
        assert await store.delete_old(NOW, 2) == 0
        assert [graph.id for graph in await store.graphs.page()] == [running.id, empty[4], empty[3], with_task]


async def test_old_graph_that_another_daemon_is_deleting_is_left_to_it(location: PostgresqlLocation) -> None:
    async with open_store(location, clock=lambda: NOW) as store:
        await _add_ended(store, 1)
        with open_engine(location) as engine, engine.begin() as other, trio.fail_after(SECONDS):
            other.execute(select(GRAPHS).with_for_update())
            assert await store.graphs.delete_old(LATER, 100) == 0
        assert await store.graphs.delete_old(LATER, 100) == 1
