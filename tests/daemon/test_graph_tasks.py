"""Graphs on the devices of daemons."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.daemon.graph_sweeps import sweep_graphs
from galaxy_trio.daemon.graphs import Graphs
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.graph_store import GraphStore
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.store import Store
from galaxy_trio.graph.conditions import Condition
from galaxy_trio.graph.model import Edge, Graph, Node, When
from galaxy_trio.graph.snapshot import GraphState
from galaxy_trio.testing.memory_fleet import open_memory_fleet
from tests.daemon.support.stored_graphs import states_of
from tests.daemon.support.task_queue import Life, ended_tasks, open_life, submit
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.server import ServerTask

pytestmark = pytest.mark.daemon


async def _ended(life: Life, graph_id: str) -> GraphState:
    with trio.fail_after(SECONDS):
        while (state := (await life.store.graphs.existing(graph_id)).state) is GraphState.RUNNING:  # noqa: ASYNC110
            await trio.sleep(0.01)
    return state


async def test_graph_runs_to_its_end_on_the_devices(database: Location) -> None:
    nodes = [Node("a", "a"), Node("b", "b", device="d2"), Node("c", "c"), Node("d", "d"), Node("e", "e")]
    edges = [
        Edge("a", "b"),
        Edge("a", "c", When.CONDITION, condition=Condition("/echo", "eq", "a")),
        Edge("a", "d", When.FAILURE),
        Edge("b", "e"),
        Edge("c", "e"),
    ]
    async with open_memory_fleet("d1", "d2") as fleet, open_life(database, fleet) as life:
        graph, _ = await life.store.graphs.add(Graph(nodes, edges))
        assert await _ended(life, graph.id) is GraphState.COMPLETED
        assert await states_of(life.store, graph.id) == {
            "a": "completed",
            "b": "completed",
            "c": "completed",
            "d": "skipped",
            "e": "completed",
        }
        snapshot = await life.store.graphs.snapshot(graph.id)
        assert snapshot.node("b").device_id == "d2"
        assert (life.task_queue.queued, life.task_queue.in_memory) == (0, 0)


async def test_queued_task_that_an_edit_takes_back_never_runs(database: Location) -> None:
    async with open_memory_fleet("d1", "d2") as fleet, open_life(database, fleet) as life:
        await fleet.kill_device("d2")
        graph, _ = await life.store.graphs.add(Graph([Node("a", "a", device="d2"), Node("b", "b")]))
        await life.store.graphs.edit(graph.id, lambda edit: edit.replace(Node("a", "other", device="d1")))
        assert await _ended(life, graph.id) is GraphState.COMPLETED
        assert (life.task_queue.queued, life.task_queue.in_memory) == (0, 0)


async def test_sweeps_go_on_when_the_database_has_failed(
    database: Location, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swept = trio.Event()
    failures = iter([StoreError("the disk is full")])

    async def sweep(_store: GraphStore) -> int:
        await trio.lowlevel.checkpoint()
        for failure in failures:
            raise failure
        swept.set()
        return 0

    monkeypatch.setattr(GraphStore, "sweep", sweep)
    async with open_memory_fleet("d1") as fleet, open_life(database, fleet) as life, trio.open_nursery() as nursery:
        nursery.start_soon(sweep_graphs, life.store, 0.01)
        with trio.fail_after(SECONDS):
            await swept.wait()
        nursery.cancel_scope.cancel()
    assert "graphs cannot be looked for, and some may stand still: the disk is full; retrying" in caplog.text


async def test_running_task_of_a_cancelled_graph_stops_although_the_caller_does_not_wait(database: Location) -> None:
    began = trio.Event()

    async def run(_task: ServerTask) -> object:
        began.set()
        await trio.sleep_forever()

    async with open_memory_fleet("d1", session=run) as fleet, open_life(database, fleet) as life:
        graph, _ = await life.store.graphs.add(Graph([Node("a", "a")]))
        with trio.fail_after(SECONDS):
            await began.wait()
        await life.store.graphs.cancel(graph.id)
        assert await _ended(life, graph.id) is GraphState.CANCELLED


async def test_node_that_is_cancelled_while_its_device_leaves_does_not_run_on_another_one(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    mark_queued = Store.mark_queued

    async def run(task: ServerTask) -> object:
        await trio.lowlevel.checkpoint()
        begun.append(task.request)
        return None

    async def mark_queued_after_the_graph_is_cancelled(
        self: Store, task_id: str, attempt: str, *, has_graph: bool
    ) -> TaskRecord:
        await self.graphs.cancel(ids[0])
        return await mark_queued(self, task_id, attempt, has_graph=has_graph)

    monkeypatch.setattr(Store, "mark_queued", mark_queued_after_the_graph_is_cancelled)
    ids: list[str] = []
    async with open_memory_fleet("d1", "d2", session=run) as fleet, open_life(database, fleet) as life:
        await ended_tasks(life, await submit(life, "echo", "d1"))
        # The daemon learns of it only when it sends the task on its idle connection.
        await fleet.kill_device("d1")
        graph, _ = await life.store.graphs.add(Graph([Node("a", "a", device="d1")]))
        ids.append(graph.id)
        assert await _ended(life, graph.id) is GraphState.CANCELLED
        [task] = await life.store.page(graph=graph.id)
        assert task.state is TaskState.CANCELLED
        await fleet.start_device("d1")
        await ended_tasks(life, await submit(life, "echo again", "d1"))
    assert begun == ["echo", "echo again"]


async def test_graphs_take_turns_so_that_a_transaction_has_few_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = 0

    async def add(_store: GraphStore, _graph: Graph, _key: str | None) -> NoReturn:
        nonlocal waiting
        waiting += 1
        await trio.sleep_forever()

    async with open_memory_fleet("d1") as fleet, open_life(tmp_path / "database", fleet) as life:
        monkeypatch.setattr(GraphStore, "add", add)
        graphs = Graphs(life.store, life.task_queue)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(graphs.submit, Graph([Node("a", "a")]), None)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert waiting == 2
            nursery.cancel_scope.cancel()


async def test_sweep_of_a_clock_that_was_set_back_ends(database: Location) -> None:
    async def fail(_task: ServerTask) -> object:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("as always")

    async with open_memory_fleet("d1", session=fail) as fleet, open_life(database, fleet) as life:
        graph, _ = await life.store.graphs.add(Graph([Node("a", "a", retries=1, backoff=300)]))
        [task] = await life.store.page(graph=graph.id)
        await ended_tasks(life, task)
        with trio.fail_after(SECONDS):
            assert await life.store.graphs.try_delayed(wall_clock.now() + timedelta(days=1)) == 0
