"""The order in which ready nodes start when only some may run at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import open_constellation
from galaxy_trio.graph import Edge, Graph, GraphState, Node, NodeState, open_graph
from galaxy_trio.testing import open_memory_fleet

from .support.sessions import open_tasks
from .test_run import states

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_nodes_for_a_busy_device_delay_no_others(autojump_clock: MockClock) -> None:
    graph = Graph([*(Node(f"busy{n}", "x", device="d1") for n in range(300)), Node("here", "here", device="d2")])
    async with open_tasks("d1", "d2") as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(partial(tasks.constellation.devices["d1"].run_task, "other"))
        await tasks.wait_running("other")
        async with open_graph(tasks.constellation, graph, max_concurrent=2):
            begin = trio.current_time()
            await tasks.wait_running("other", "here")
            assert trio.current_time() == begin
        await tasks.complete("other")


async def test_nodes_that_are_ready_together_for_one_free_slot_delay_no_others(autojump_clock: MockClock) -> None:
    """Only the first of them takes it."""
    graph = Graph([*(Node(f"a{n}", f"a{n}", device="d1") for n in range(3)), Node("b", "b", device="d2")])
    async with open_tasks("d1", "d2") as tasks:
        begin = trio.current_time()
        async with open_graph(tasks.constellation, graph, max_concurrent=2):
            await tasks.wait_running("a0", "b")
            assert trio.current_time() == begin


async def test_nodes_for_any_device_take_the_free_slots_of_all_before_those_for_one(autojump_clock: MockClock) -> None:
    """The slots that are free are shared out as the scheduler will: the third node for d1 is not promised the slot of the second."""
    nodes = [Node("any1", "any1"), Node("any2", "any2"), Node("d1", "d1", device="d1"), Node("d3", "d3", device="d3")]
    async with open_tasks("d1", "d2", "d3") as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(partial(tasks.constellation.devices["d3"].run_task, "other"))
        await tasks.wait_running("other")
        async with open_graph(tasks.constellation, Graph(nodes), max_concurrent=3):
            await tasks.wait_running("other", "any1", "any2")
            begin = trio.current_time()
            await tasks.complete("other")
            await tasks.wait_running("any1", "any2", "d3")
            assert trio.current_time() == begin


async def test_node_that_waits_for_its_next_attempt_delays_no_others(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", retries=1, backoff=300, priority=1), Node("b", "b")])
    async with open_tasks("d1", "d2") as tasks, open_graph(tasks.constellation, graph, max_concurrent=1):
        await tasks.wait_running("a")
        begin = trio.current_time()
        await tasks.fail("a")
        await tasks.wait_running("b")
        assert trio.current_time() == begin


async def test_node_whose_turn_came_while_no_more_might_run_keeps_its_turn(autojump_clock: MockClock) -> None:
    """It was ready before the others, and its device was busy."""
    graph = Graph(
        [Node("first", "first", device="d1"), *(Node(name, name, device="d2") for name in ("x", "y", "z"))],
    )
    async with open_tasks("d1", "d2") as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(partial(tasks.constellation.devices["d1"].run_task, "other"))
        await tasks.wait_running("other")
        async with open_graph(tasks.constellation, graph, max_concurrent=1) as run:
            await tasks.wait_running("other", "x")
            await tasks.complete("other")
            await trio.sleep(5)
            assert (tasks.running, states(run)["first"]) == ({"x"}, "ready")
            for name in ("first", "y", "z"):
                await tasks.complete(*tasks.running)
                await tasks.wait_running(name)
            await tasks.complete("z")
            assert (await run.wait()).state is GraphState.COMPLETED


async def test_node_that_is_removed_while_its_turn_passes_does_not_come_back(autojump_clock: MockClock) -> None:
    """Its device is free, and no more nodes may run: at each step of finding that out."""
    graph = Graph([Node("first", "first", device="d1"), Node("x", "x", device="d2")])
    async with open_tasks("d1", "d2") as tasks, trio.open_nursery() as nursery:
        for steps in range(60):
            nursery.start_soon(partial(tasks.constellation.devices["d1"].run_task, "other"))
            await tasks.wait_running("other")
            async with open_graph(tasks.constellation, graph, max_concurrent=1) as run:
                await tasks.wait_running("other", "x")
                tasks.complete_nowait("other")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                run.edit(lambda edit: edit.remove("first"))
                await tasks.complete("x")
                assert set((await run.wait()).results) == {"x"}
    assert "first" not in tasks.started


async def test_more_nodes_than_may_wait_for_a_device_together_all_run(autojump_clock: MockClock) -> None:
    graph = Graph([Node(f"n{number}", "x", device=f"d{number % 2}") for number in range(260)])
    async with (
        open_memory_fleet("d0", "d1") as fleet,
        open_constellation(fleet.configs, connect=fleet.connect) as constellation,
        open_graph(constellation, graph) as run,
    ):
        with trio.fail_after(1000):
            assert (await run.wait()).state is GraphState.COMPLETED


@pytest.mark.parametrize("width", [1, 3])
async def test_no_more_nodes_run_than_allowed_whatever_they_wait_for(width: int, autojump_clock: MockClock) -> None:
    graph = Graph(
        [Node(f"n{n}", f"n{n}", device=f"d{n % 3}" if n % 2 else None, priority=n % 5) for n in range(20)],
        [Edge(f"n{n}", f"n{n + 7}") for n in range(13)],
    )
    most = 0
    async with (
        open_tasks("d0", "d1", "d2") as tasks,
        open_graph(tasks.constellation, graph, max_concurrent=width) as run,
    ):
        while run.state is GraphState.RUNNING:
            await trio.sleep(5)
            most = max(most, len(tasks.running))
            assert len(tasks.running) <= width
            assert sum(state is NodeState.RUNNING for state in run.states.values()) <= width
            await tasks.complete(*list(tasks.running)[:1])
        assert (await run.wait()).state is GraphState.COMPLETED
    assert most == width
