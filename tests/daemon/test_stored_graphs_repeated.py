"""Operations on graphs that come twice, or too late; and limits of what is read."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from sqlalchemy import Engine, delete

from galaxy_trio.daemon.store import graph_deletion, graph_ends, graph_snapshots, graph_tasks, graphs, queries
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.graph_documents import encode_graph
from galaxy_trio.daemon.store.graph_steps import GRAPH, MAX_SHOWN
from galaxy_trio.daemon.store.graph_store import GraphStore
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import GRAPHS
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.errors import GraphTooLarge
from galaxy_trio.graph.model import Edge, Graph, Node
from galaxy_trio.graph.snapshot import GraphState
from tests.daemon.support.lives import NOW, new_engine, transaction_on
from tests.daemon.support.store import kill
from tests.daemon.support.stored_graphs import begin, begin_in, chain, requests_of, run, states_of, task_ids

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon


@pytest.fixture
def engine(database: Location) -> Generator[Engine]:
    with new_engine(database) as engine:
        yield engine


def test_addition_that_is_repeated_adds_the_graph_once(engine: Engine) -> None:
    with engine.begin() as connection:
        transaction = transaction_on(connection)
        first, is_new = graphs.add(transaction, encode_graph(chain("a")))
        again, is_new_again = graphs.add(transaction, encode_graph(chain("a")))
        assert (is_new, is_new_again) == (True, False)
        assert first == again
        assert len(graphs.page(connection)) == 1


@pytest.mark.parametrize("backoff", [0, 100])
def test_end_that_is_repeated_advances_the_graph_once(engine: Engine, backoff: float) -> None:
    graph = Graph([Node("a", "a", retries=5, backoff=backoff)])
    with engine.begin() as connection:
        record, _ = graphs.add(transaction_on(connection), encode_graph(graph))
        task_id = begin_in(connection, record.id, "a")
    finish = partial(
        graph_ends.finish, task_id=task_id, attempt=task_id, claimed_by="life", state=TaskState.FAILED, error="broken"
    )
    for _ in range(2):
        with engine.begin() as connection:
            assert finish(transaction_on(connection)).state is TaskState.FAILED
    with engine.connect() as connection:
        assert graph_snapshots.snapshot(connection, record.id).node("a").attempt == 1
        assert graphs.existing(connection, record.id).state is GraphState.RUNNING


async def test_task_that_was_taken_back_changes_its_node_no_more(database: Location) -> None:
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(chain("a", "b"))
        before = (await task_ids(store, graph.id))["a"]
        await store.graphs.edit(graph.id, lambda edit: edit.replace(Node("a", "other")))
        assert (await store.cancel_queued(before))[1] is False
        assert await states_of(store, graph.id) == {"a": "ready", "b": "waiting"}
        replaced = (await task_ids(store, graph.id))["a"]
        await store.graphs.edit(graph.id, lambda edit: edit.remove("a"))
        assert (await store.cancel_queued(replaced))[1] is False
        assert await states_of(store, graph.id) == {"b": "ready"}


async def test_queued_task_whose_end_was_not_followed_does_not_stop_an_edit(database: Location) -> None:
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(chain("a", "b"))
        task_id = (await task_ids(store, graph.id))["a"]
        await store.write(partial(queries.cancel_queued, task_id=task_id))
        await store.graphs.edit(graph.id, lambda edit: edit.replace(Node("b", "other")))
        assert await states_of(store, graph.id) == {"a": "ready", "b": "waiting"}
        # It would be taken back, if it was queued.
        await store.graphs.edit(graph.id, lambda edit: edit.replace(Node("a", "other")))
        assert await requests_of(store, graph.id) == {"a": "other"}
        await store.write(partial(queries.cancel_queued, task_id=(await task_ids(store, graph.id))["a"]))
        assert await store.graphs.sweep() == 1
        assert await states_of(store, graph.id) == {"a": "cancelled", "b": "skipped"}


async def test_end_of_a_task_whose_graph_was_deleted_is_written(database: Location) -> None:
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(chain("a"))
        task = await begin(store, graph.id, "a")
        await store.write(lambda transaction: transaction.connection.execute(delete(GRAPHS)))
        ended = await store.finish(task.id, f"attempt of {task.id}", store.life, TaskState.COMPLETED)
        assert (ended.state, ended.graph, ended.node) == (TaskState.COMPLETED, graph.id, "a")
        await store.write(partial(graph_ends.sweep, graph_id=graph.id))


async def test_nothing_is_deleted_if_another_daemon_was_faster(database: Location) -> None:
    async with open_store(database) as store:
        await store.graphs.add(chain("a"))
        assert await store.write(partial(graph_deletion.delete_part, older_than=NOW, keep=1)) is None


async def test_results_above_the_limit_are_not_read_together(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_snapshots, "MAX_RESULTS", 10)
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(chain("a", "b"))
        await run(store, graph.id, "a", result='"12345678"')
        assert (await store.graphs.snapshot(graph.id)).node("a").result == "12345678"
        await run(store, graph.id, "b", result="1")
        with pytest.raises(GraphTooLarge, match="have 11 bytes, and at most 10 are read together"):
            await store.graphs.snapshot(graph.id)
        assert (await store.graphs.snapshot(graph.id, with_results=False)).node("a").result is None


async def test_results_are_forgotten_when_many_texts_show_others(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_tasks, "_MAX_KNOWN", 1)
    nodes = [Node(name, name) for name in ("a", "b", "c", "d", "e")]
    edges = [Edge(source, target) for target in ("d", "e") for source in ("a", "b", "c")]
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(Graph(nodes, edges))
        for name in ("a", "b", "c"):
            await run(store, graph.id, name, result=f'"{name * 3}"')
        for text in (await requests_of(store, graph.id)).values():
            assert [f'"{name * 3}"' in text for name in ("a", "b", "c")] == [True] * 3


async def test_graphs_are_listed_by_their_state(database: Location) -> None:
    async with open_store(database) as store:
        running, _ = await store.graphs.add(chain("a"))
        ended, _ = await store.graphs.add(Graph(name="empty", metadata={"key": [1]}))
        assert [graph.id for graph in await store.graphs.page(state=GraphState.RUNNING)] == [running.id]
        assert [graph.name for graph in await store.graphs.page(state=GraphState.COMPLETED)] == ["empty"]
        snapshot = await store.graphs.snapshot(ended.id)
        assert (snapshot.graph.name, snapshot.graph.metadata) == ("empty", {"key": [1]})


async def test_events_of_a_graph_are_short_and_name_the_nodes_that_have_changed(database: Location) -> None:
    async with open_store(database) as store:
        names = [f"n{number}" for number in range(MAX_SHOWN + 2)]
        graph, _ = await store.graphs.add(Graph([Node(name, name) for name in names], name="many" * 1_000))
        await run(store, graph.id, "n0")
        page = await store.events_after(0)
        events = [json.loads(event.data) for event in page.events if event.kind == GRAPH]
        while page.has_more:
            page = await store.events_after(page.events[-1].id)
            events += [json.loads(event.data) for event in page.events if event.kind == GRAPH]
        added, ended = events
        assert (added["id"], added["state"], added["version"]) == (graph.id, "running", 0)
        assert added["name"] == ended["name"] == f"{'many' * 250:.999}…"
        assert (await store.graphs.snapshot(graph.id)).graph.name == "many" * 1_000
        assert (len(added["changed"]), added["more_changed"]) == (MAX_SHOWN, 2)
        assert (ended["changed"], ended["more_changed"]) == ({"n0": "completed"}, 0)
        assert ended["nodes"] == {"ready": MAX_SHOWN + 1, "completed": 1}


async def test_sweep_that_fails_after_a_takeover_hides_nothing_of_it(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: GraphStore) -> int:
        await trio.lowlevel.checkpoint()
        raise StoreError("the database is away")

    async with open_store(database) as store:
        graph, _ = await store.graphs.add(chain("a"))
        await begin(store, graph.id, "a")
        await kill(store)
    monkeypatch.setattr(GraphStore, "sweep", fail)
    async with open_store(database) as store:
        assert store.lost_at_start == 1
        monkeypatch.undo()
        await store.graphs.sweep()
        assert (await store.graphs.existing(graph.id)).state is GraphState.FAILED
