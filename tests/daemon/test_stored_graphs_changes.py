"""Changes of graphs in the database by clients: cancellations, retries, edits; and what daemons do for them later."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.store import queries
from galaxy_trio.daemon.store.graphs import NoSuchGraph
from galaxy_trio.daemon.store.queries import IdempotencyConflict
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.errors import GraphFileError, NoSuchNode
from galaxy_trio.graph.conditions import Condition
from galaxy_trio.graph.model import Edge, Graph, Node, When
from galaxy_trio.graph.snapshot import GraphState
from tests.daemon.support.store import NOW, kill
from tests.daemon.support.stored_graphs import begin, chain, end, requests_of, run, states_of, task_ids

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.graph.edit import GraphEdit

pytestmark = pytest.mark.daemon


async def test_repeated_key_returns_the_first_graph_and_another_graph_conflicts(database: Location) -> None:
    async with open_store(database) as store:
        first, is_new = await store.graphs.add(chain("a", "b"), "monday")
        assert is_new
        await store.graphs.edit(first.id, lambda edit: edit.remove("b"))
        again, is_new = await store.graphs.add(chain("a", "b"), "monday")
        assert (again.id, again.version, is_new) == (first.id, 1, False)
        with pytest.raises(IdempotencyConflict, match="another one when it was accepted"):
            await store.graphs.add(chain("a"), "monday")
        other, is_new = await store.graphs.add(chain("a"), "tuesday")
        assert is_new
        assert [graph.id for graph in await store.graphs.page()] == [other.id, first.id]
        assert [graph.id for graph in await store.graphs.page(limit=1, before=other.id)] == [first.id]


async def test_unknown_graphs_and_nodes_are_refused(database: Location) -> None:
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(chain("a"))
        with pytest.raises(NoSuchGraph, match="there is no graph"):
            await store.graphs.existing(graph.id[:-1])
        with pytest.raises(NoSuchGraph):
            await store.graphs.cancel("?")
        with pytest.raises(NoSuchNode):
            await store.graphs.cancel(graph.id, "b")
        with pytest.raises(NoSuchNode):
            await store.graphs.retry(graph.id, "b")


async def test_graph_with_functions_is_refused(database: Location) -> None:
    async with open_store(database) as store:
        with pytest.raises(GraphFileError, match="a function"):
            await store.graphs.add(Graph([Node("a", "a", where=bool)]))
        graph, _ = await store.graphs.add(chain("a", "b"))
        edge = Edge("a", "b", When.CONDITION, condition=bool)
        with pytest.raises(GraphFileError, match="a function"):
            await store.graphs.edit(graph.id, lambda edit: edit.connect(edge))
        with pytest.raises(GraphFileError, match="a function"):
            await store.graphs.add(Graph([Node("a", "a"), Node("b", "b")], [edge]))


async def test_queued_tasks_of_nodes_that_an_edit_changes_are_cancelled(database: Location) -> None:
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(Graph([Node("a", "a"), Node("b", "b"), Node("c", "c")]))
        before = await task_ids(store, graph.id)

        def change(edit: GraphEdit) -> None:
            edit.replace(Node("a", "other"))
            edit.remove("b")

        await store.graphs.edit(graph.id, change)
        assert await requests_of(store, graph.id) == {"a": "other", "c": "c"}
        states = {node_id: (await store.existing(task)).state for node_id, task in before.items()}
        assert states == {"a": TaskState.CANCELLED, "b": TaskState.CANCELLED, "c": TaskState.QUEUED}


async def test_cancelled_graph_ends_what_has_not_started_and_asks_for_what_runs(database: Location) -> None:
    async with open_store(database) as store:
        nodes = [Node(name, name, retries=5) for name in ("runs", "queued", "waits")]
        graph, _ = await store.graphs.add(Graph(nodes, [Edge("runs", "waits")]))
        task = await begin(store, graph.id, "runs")
        queued = (await task_ids(store, graph.id))["queued"]
        cancelled, running = await store.graphs.cancel(graph.id)
        assert (cancelled.state, running) == (GraphState.RUNNING, [task.id])
        assert await states_of(store, graph.id) == {"runs": "running", "queued": "cancelled", "waits": "cancelled"}
        assert (await store.existing(queued)).state is TaskState.CANCELLED
        page = await store.events_after(0)
        assert f'{{"id":"{task.id}"}}' in [event.data for event in page.events if event.kind == "cancel"]
        # It is not tried again.
        await end(store, graph.id, "runs", TaskState.FAILED)
        assert (await store.graphs.existing(graph.id)).state is GraphState.CANCELLED
        assert (await states_of(store, graph.id))["runs"] == "cancelled"
        assert await store.graphs.cancel(graph.id) == (await store.graphs.existing(graph.id), [])


async def test_task_that_a_client_cancels_cancels_its_node(database: Location) -> None:
    async with open_store(database) as store:
        changed: list[TaskRecord] = []
        graph, _ = await store.graphs.add(Graph(chain("a", "b").nodes, [Edge("a", "b", When.END)]))
        store.graphs.on_tasks = changed.extend
        await store.cancel_queued((await task_ids(store, graph.id))["a"])
        assert await states_of(store, graph.id) == {"a": "cancelled", "b": "ready"}
        assert [(task.id, task.state) for task in changed] == [
            ((await task_ids(store, graph.id))["b"], TaskState.QUEUED)
        ]
        # One that is not queued stays.
        await begin(store, graph.id, "b")
        assert (await store.cancel_queued((await task_ids(store, graph.id))["b"]))[1] is False
        assert (await states_of(store, graph.id))["b"] == "running"


async def test_queued_tasks_that_no_device_can_run_fail_their_nodes(database: Location) -> None:
    async with open_store(database) as store:
        nodes = [Node("a", "a", os="plan9", retries=3), Node("b", "b", os="plan9"), Node("c", "c")]
        edges = [Edge("a", "c", When.FAILURE), Edge("b", "c", When.FAILURE)]
        graphs = [(await store.graphs.add(Graph(nodes, edges)))[0] for _ in range(2)]
        alone, _ = await store.add(TaskRequest("echo", os="plan9", priority=1))
        failed = await store.fail_queued(Requirement(os="plan9"), "there is none", 4)
        assert len(failed) == 4
        assert failed[0].id == alone.id
        assert await states_of(store, graphs[0].id) == {"a": "failed", "b": "failed", "c": "ready"}
        assert await states_of(store, graphs[1].id) == {"a": "failed", "b": "ready", "c": "waiting"}


async def test_node_that_shows_that_another_one_waits_gets_a_new_text_when_that_is_skipped(database: Location) -> None:
    nodes = [Node("a", "a"), Node("b", "b"), Node("c", "c", retries=1, backoff=0)]
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(Graph(nodes, [Edge("a", "b"), Edge("b", "c", When.END)]))
        await run(store, graph.id, "a", TaskState.FAILED)
        await begin(store, graph.id, "c")
        await store.graphs.retry(graph.id, "a")
        await end(store, graph.id, "c", TaskState.FAILED)
        assert '{"task": "b", "state": "waiting"' in (await requests_of(store, graph.id))["c"]
        await run(store, graph.id, "a", TaskState.FAILED)
        assert '{"task": "b", "state": "skipped"' in (await requests_of(store, graph.id))["c"]


async def test_graphs_go_on_after_the_death_of_the_daemon_that_ran_their_tasks(database: Location) -> None:
    async with open_store(database) as store:
        nodes = [Node("a", "a"), Node("b", "b"), Node("again", "c", retries=1, retry_lost=True, backoff=0)]
        graph, _ = await store.graphs.add(Graph(nodes, [Edge("a", "b", When.FAILURE)]))
        await begin(store, graph.id, "a")
        await begin(store, graph.id, "again")
        await kill(store)
    async with open_store(database) as store:
        assert store.lost_at_start == 2
        assert await states_of(store, graph.id) == {"a": "lost", "b": "ready", "again": "ready"}
        assert sorted(await requests_of(store, graph.id)) == ["again", "b"]
        assert await store.graphs.sweep() == 0


async def test_end_that_was_not_followed_is_followed_by_a_sweep(database: Location) -> None:
    async with open_store(database) as store:
        edge = Edge("a", "b", When.CONDITION, condition=Condition("", "eq", 1))
        graph, _ = await store.graphs.add(Graph([Node("a", "a"), Node("b", "b")], [edge]))
        task = await begin(store, graph.id, "a")
        await store.write(
            partial(
                queries.finish,
                task_id=task.id,
                attempt=f"attempt of {task.id}",
                claimed_by=store.life,
                state=TaskState.COMPLETED,
                result="1",
            )
        )
        assert await states_of(store, graph.id) == {"a": "running", "b": "waiting"}
        changed: list[TaskRecord] = []
        store.graphs.on_tasks = changed.extend
        assert await store.graphs.sweep() == 1
        assert await states_of(store, graph.id) == {"a": "completed", "b": "ready"}
        assert [task.node for task in changed] == ["b"]
        assert await store.graphs.sweep() == 0


async def test_node_that_has_failed_waits_before_it_is_tried_again(database: Location) -> None:
    now = NOW
    async with open_store(database, clock=lambda: now) as store:
        graph, _ = await store.graphs.add(Graph([Node("a", "a", retries=1, backoff=100)]))
        await run(store, graph.id, "a", TaskState.FAILED)
        assert await states_of(store, graph.id) == {"a": "ready"}
        assert await requests_of(store, graph.id) == {}
        assert await store.graphs.try_delayed(now) == 0
        now += timedelta(seconds=101)
        assert await store.graphs.try_delayed(now) == 1
        assert await store.graphs.try_delayed(now) == 0
        assert await requests_of(store, graph.id) == {"a": "a"}


async def test_tasks_of_graphs_are_deleted_together_with_their_graph(database: Location) -> None:
    now = NOW
    async with open_store(database, clock=lambda: now) as store:
        graph, _ = await store.graphs.add(chain("a", "b"))
        await run(store, graph.id, "a", result="1")
        now += timedelta(days=10)
        assert await store.delete_old(now, 1) == 0
        await run(store, graph.id, "b")
        assert await store.delete_old(now, 100) == 0
        other, _ = await store.graphs.add(chain("a"))
        await run(store, other.id, "a")
        # Beyond the newest one.
        assert await store.delete_old(NOW, 1) == 2
        assert [kept.id for kept in await store.graphs.page()] == [other.id]
        assert await store.delete_old(now + timedelta(days=1), 100) == 1
        assert await store.graphs.page() == []
        assert await store.page() == []
