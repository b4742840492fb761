"""Nodes go to their devices by priority, then in the order in which they became ready, all the way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.errors import GraphError
from galaxy_trio.graph import Edge, Graph, GraphState, Node, NodeState, open_graph

from .support.sessions import open_tasks

if TYPE_CHECKING:
    from trio.testing import MockClock

    from .support.sessions import Tasks


async def _complete_all(tasks: Tasks, count: int) -> None:
    """End the tasks, which run one at a time."""
    for number in range(count):
        await tasks.wait_started(number + 1)
        await tasks.complete(tasks.started[number])


@pytest.mark.parametrize("run", range(5))
async def test_nodes_that_are_ready_at_the_same_time_run_in_order(run: int, autojump_clock: MockClock) -> None:
    del run
    graph = Graph([Node(f"{number}", f"{number}", device="d1", priority=number % 3) for number in range(9)])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as graph_run:
        await _complete_all(tasks, 9)
        assert (await graph_run.wait()).state is GraphState.COMPLETED
    assert tasks.started == list("258147036")


async def test_node_of_a_high_priority_goes_before_all_that_wait_in_the_queue_of_its_device(
    autojump_clock: MockClock,
) -> None:
    low = [Node(f"low {number}", f"low {number}", device="d1", priority=-1) for number in range(150)]
    graph = Graph(
        [Node("first", "first", device="d1"), Node("urgent", "urgent", priority=1), *low], [Edge("first", "urgent")]
    )
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.wait_running("first")
        await trio.sleep(10)
        assert tasks.constellation.devices["d1"].queued == 100
        await tasks.complete("first")
        # A slot is handed over in the step in which it is free.
        assert tasks.started[1] == "low 0"
        await tasks.complete("low 0")
        assert tasks.started[2:] == ["urgent"]
        run.cancel()
        await run.wait()


async def test_nodes_enter_a_full_queue_in_order(autojump_clock: MockClock) -> None:
    nodes = [Node(f"{number}", f"{number}", device="d1", priority=number % 2) for number in range(8)]
    async with open_tasks("d1", max_queued=1) as tasks, open_graph(tasks.constellation, Graph(nodes)) as run:
        for number in range(8):
            await trio.sleep(5)
            await tasks.complete(tasks.started[number])
        assert (await run.wait()).state is GraphState.COMPLETED
    assert tasks.started == list("13570246")


async def test_node_that_waits_for_a_full_queue_can_be_cancelled(autojump_clock: MockClock) -> None:
    nodes = [Node(name, name, device="d1") for name in "abcd"]
    async with open_tasks("d1", max_queued=1) as tasks, open_graph(tasks.constellation, Graph(nodes)) as run:
        await tasks.wait_running("a")
        run.cancel("c")
        await tasks.complete("a", "b", "d")
        await run.wait()
    assert tasks.started == ["a", "b", "d"]


async def test_limit_of_the_graph_leaves_room_for_a_ready_node_of_a_higher_priority(autojump_clock: MockClock) -> None:
    """Also if its device ran another node before."""
    nodes = [
        Node("0", "0", device="d2"),
        Node("1", "1", device="d1"),
        Node("2", "2", device="d1"),
        Node("urgent", "urgent", device="d2", priority=1),
    ]
    graph = Graph(nodes, [Edge("0", "1"), Edge("0", "2"), Edge("1", "urgent")])
    async with open_tasks("d1", "d2") as tasks:
        await tasks.fleet.kill_device("d1")
        await trio.sleep(100)
        async with open_graph(tasks.constellation, graph, max_concurrent=1) as run:
            await tasks.complete("0")
            await trio.sleep(100)
            # Both wait for the device, which is absent.
            device = tasks.constellation.devices["d1"]
            assert device.running + device.queued == 2
            await tasks.fleet.start_device("d1")
            await tasks.complete("1", "urgent", "2")
            assert (await run.wait()).state is GraphState.COMPLETED
        assert tasks.started == ["0", "1", "urgent", "2"]


async def test_node_that_found_no_room_keeps_its_place(autojump_clock: MockClock) -> None:
    nodes = [Node(f"{number}", f"{number}", device=f"d{number % 2}") for number in range(4)]
    async with open_tasks("d0", "d1") as tasks:
        for device_id in ("d0", "d1"):
            await tasks.fleet.kill_device(device_id)
        await trio.sleep(100)
        async with open_graph(tasks.constellation, Graph(nodes), max_concurrent=1) as run:
            await trio.sleep(100)
            await tasks.fleet.start_device("d1")
            await trio.sleep(100)
            await tasks.fleet.start_device("d0")
            await trio.sleep(100)
            await _complete_all(tasks, 4)
            await run.wait()
    assert tasks.started == ["1", "0", "2", "3"]


@pytest.mark.parametrize("priority", [101, 0.5, True, "high"])
def test_priority_of_a_node_is_a_whole_number_in_range(priority: object) -> None:
    with pytest.raises(GraphError, match=r"^node 'a': a priority is a whole number from -100 to 100, and this one is "):
        Node("a", "x", priority=priority)  # type: ignore[arg-type]


async def test_node_that_gets_ready_goes_before_those_of_a_lower_priority_that_wait_since_a_failure(
    autojump_clock: MockClock,
) -> None:
    graph = Graph([Node(name, name) for name in "abcd"])
    async with (
        open_tasks("d1", "d2") as tasks,
        open_graph(tasks.constellation, graph, max_concurrent=2) as run,
    ):
        await tasks.wait_running("a", "b")
        await tasks.fail("a")
        await tasks.wait_running("b", "c")
        run.edit(lambda edit: edit.add(Node("urgent", "urgent", priority=1)))
        await tasks.complete("c")
        assert tasks.running == {"b", "urgent"}


async def test_second_of_two_urgent_nodes_goes_before_one_of_a_lower_priority_in_the_queue_of_its_device(
    autojump_clock: MockClock,
) -> None:
    """Both get ready with one place left, which the first of them takes."""
    nodes = [
        Node("x", "x", device="d1"),
        Node("s", "s", device="d2"),
        Node("low", "low", device="d1", priority=-1),
        Node("urgent 1", "urgent 1", device="d2", priority=1),
        Node("urgent 2", "urgent 2", device="d1", priority=1),
    ]
    graph = Graph(nodes, [Edge("s", "urgent 1"), Edge("s", "urgent 2")])
    async with open_tasks("d1", "d2") as tasks:
        await tasks.fleet.kill_device("d2")
        await trio.sleep(100)
        async with open_graph(tasks.constellation, graph, max_concurrent=2) as run:
            await tasks.wait_running("x")
            await trio.sleep(5)
            assert tasks.constellation.devices["d1"].queued == 1
            await tasks.fleet.start_device("d2")
            await tasks.complete("s")
            await tasks.wait_running("x", "urgent 1")
            await tasks.complete("x", "urgent 2", "low", "urgent 1")
            assert (await run.wait()).state is GraphState.COMPLETED
    assert tasks.started == ["x", "s", "urgent 1", "urgent 2", "low"]


async def test_node_that_is_cancelled_when_one_of_a_higher_priority_gets_ready_does_not_come_back(
    autojump_clock: MockClock,
) -> None:
    nodes = [Node("x", "x", device="d1"), Node("low", "low", device="d1"), Node("y", "y", device="d2")]
    async with (
        open_tasks("d1", "d2") as tasks,
        open_graph(tasks.constellation, Graph(nodes), max_concurrent=2) as run,
    ):
        await tasks.wait_running("x", "y")
        assert tasks.constellation.devices["d1"].queued == 1
        run.cancel("low")
        run.edit(lambda edit: edit.add(Node("urgent", "urgent", device="d1", priority=1)))
        await tasks.complete("x", "y", "urgent")
        assert (await run.wait()).results["low"].state is NodeState.CANCELLED
        assert "low" not in tasks.started


@pytest.mark.parametrize("steps", [steps for steps in range(12) for _ in range(4)])
async def test_node_of_a_lower_priority_that_gives_way_before_its_task_begins_runs_later(
    steps: int, autojump_clock: MockClock
) -> None:
    """Its turn comes again in the same step, because another node ends in it: trio chooses which is first."""
    async with open_tasks("d1", "d2", "d3") as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(partial(tasks.constellation.devices["d3"].run_task, "other"))
        await tasks.wait_running("other")
        graph = Graph([Node("y", "y", device="d2")])
        async with open_graph(tasks.constellation, graph, max_concurrent=2) as run:
            await tasks.wait_running("other", "y")
            tasks.complete_nowait("y")
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            run.edit(lambda edit: edit.add(Node("low", "low", device="d3")))
            run.edit(lambda edit: edit.add(Node("b", "b", device="d1")))
            run.edit(lambda edit: edit.add(Node("urgent", "urgent", device="d3", priority=1)))
            await tasks.wait_running("other", "b")
            await tasks.complete("other", "urgent", "low", "b")
            assert (await run.wait()).state is GraphState.COMPLETED
    assert tasks.started == ["other", "y", "b", "urgent", "low"]
