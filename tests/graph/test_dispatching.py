"""Nodes that wait for devices, and attempts that come to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.graph import Edge, Graph, GraphState, Node, NodeResult, NodeState, open_graph

from .support.sessions import open_tasks
from .test_run import nodes, states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from galaxy_trio.graph import GraphEdit, GraphRun

    from .support.sessions import Tasks


async def test_node_enters_a_full_queue_later(autojump_clock: MockClock) -> None:
    graph = Graph([Node(name, name, device="d1") for name in "abc"])
    async with open_tasks("d1", max_queued=1) as tasks, open_graph(tasks.constellation, graph) as run:
        for _ in range(3):
            await trio.sleep(5)
            [running] = tasks.running
            await tasks.complete(running)
        result = await run.wait()
    assert result.state is GraphState.COMPLETED
    assert sorted(tasks.started) == ["a", "b", "c"]
    assert {node.attempt for node in result.results.values()} == {1}


async def test_devices_that_come_back_together_start_no_more_nodes_than_allowed(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", device="d1"), Node("b", "b", device="d2")])
    async with open_tasks("d1", "d2") as tasks:
        await _leave(tasks, "d1", "d2")
        async with open_graph(tasks.constellation, graph, max_concurrent=1) as run:
            await trio.sleep(100)
            assert states(run) == {"a": "ready", "b": "ready"}
            await tasks.fleet.start_device("d1")
            await tasks.fleet.start_device("d2")
            for _ in range(2):
                await trio.sleep(100)
                [running] = tasks.running
                await tasks.complete(running)
            assert (await run.wait()).state is GraphState.COMPLETED


async def _leave(tasks: Tasks, *device_ids: str) -> None:
    for device_id in device_ids:
        await tasks.fleet.kill_device(device_id)
    await trio.sleep(100)


async def _begin_without_a_device(tasks: Tasks, run: GraphRun) -> None:
    """Send a node to a device that has just left."""
    await tasks.complete("before")
    await tasks.fleet.kill_device("d1")
    run.edit(lambda edit: edit.add(Node("a", "a", device="d1")))


async def test_attempt_that_was_not_sent_does_not_count_and_the_node_waits_again(autojump_clock: MockClock) -> None:
    graph = Graph([Node("before", "before", device="d1")])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await _begin_without_a_device(tasks, run)
        await trio.sleep(100)
        assert states(run) == {"before": "completed", "a": "ready"}
        assert run.statistics().attempts == 1
        await tasks.fleet.start_device("d1")
        await tasks.complete("a")
        result = await run.wait()
    assert (result.results["a"].state, result.results["a"].attempt) == (NodeState.COMPLETED, 1)


async def test_node_that_was_not_sent_leaves_its_queue_for_one_of_a_higher_priority(autojump_clock: MockClock) -> None:
    graph = Graph([Node("before", "before", device="d1")])
    async with (
        open_tasks("d1", "d2") as tasks,
        open_graph(tasks.constellation, graph, max_concurrent=1) as run,
    ):
        await _begin_without_a_device(tasks, run)
        await trio.sleep(100)
        device = tasks.constellation.devices["d1"]
        run.edit(lambda edit: edit.add(Node("b", "b", device="d2")))
        await tasks.wait_running("b")
        assert device.running + device.queued == 1
        run.edit(lambda edit: edit.add(Node("urgent", "urgent", device="d2", priority=1)))
        await trio.sleep(1)
        assert device.running + device.queued == 0
        await tasks.complete("b", "urgent")
        await tasks.fleet.start_device("d1")
        await tasks.complete("a")
        assert (await run.wait()).state is GraphState.COMPLETED


async def test_node_that_was_not_sent_and_is_held_runs_once_after_the_hold(autojump_clock: MockClock) -> None:
    graph = Graph([Node("before", "before", device="d1")])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await _begin_without_a_device(tasks, run)
        while run.states["a"] is not NodeState.RUNNING:
            await trio.lowlevel.checkpoint()
        with run.hold("a"):
            await trio.sleep(100)
            await tasks.fleet.start_device("d1")
            await trio.sleep(100)
            assert states(run) == {"before": "completed", "a": "ready"}
            assert tasks.started == ["before"]
        await tasks.complete("a")
        await run.wait()
        assert tasks.started == ["before", "a"]


async def test_node_that_fails_under_a_hold_has_its_next_attempt_after_it(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", retries=1)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.wait_running("a")
        with run.hold("a"):
            await tasks.fail("a")
            await trio.sleep(100)
            assert (states(run), tasks.started) == ({"a": "ready"}, ["a"])
        await tasks.complete("a")
        assert (await run.wait()).state is GraphState.COMPLETED


async def test_node_that_gets_ready_under_a_hold_starts_after_it(autojump_clock: MockClock) -> None:
    graph = Graph(nodes("a", "b"), [Edge("a", "b")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        with run.hold("b", "b"):
            await tasks.complete("a")
            await trio.sleep(100)
            assert states(run) == {"a": "completed", "b": "ready"}
        await tasks.complete("b")
        await run.wait()
        assert tasks.started == ["a", "b"]


async def test_node_that_is_removed_and_added_again_runs_once_as_the_new_one(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", device="d1"), Node("b", "old", device="d1")])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await trio.testing.wait_all_tasks_blocked()
        [running] = tasks.running
        waiting = {"a": "b", "old": "a"}[running]

        def change(edit: GraphEdit) -> None:
            edit.remove(waiting)
            edit.add(Node(waiting, "new", device="d1"))

        run.edit(change)
        await tasks.complete(running, "new")
        await run.wait()
        await trio.sleep(100)
        assert tasks.started == [running, "new"]


async def test_exception_of_make_request_comes_out_of_the_block(autojump_clock: MockClock) -> None:
    def broken(node: Node, results: Mapping[str, NodeResult]) -> str:
        raise ZeroDivisionError(node, results)

    with pytest.raises(ZeroDivisionError):
        async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a")), make_request=broken):
            await trio.sleep_forever()


@pytest.mark.parametrize("steps", range(20, 60))
async def test_node_that_is_cancelled_at_any_step_of_an_attempt_that_is_not_sent_ends(
    steps: int, autojump_clock: MockClock
) -> None:
    graph = Graph([Node("before", "before", device="d1")])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await _begin_without_a_device(tasks, run)
        while run.states["a"] is not NodeState.RUNNING:
            await trio.lowlevel.checkpoint()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        run.cancel("a")
        with trio.fail_after(1000):
            assert (await run.wait()).results["a"].state is NodeState.CANCELLED
