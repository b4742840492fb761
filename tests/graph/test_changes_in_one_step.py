"""What happens in the same step as a change of the graph: ends of attempts, and functions that change it as well."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.errors import GraphError, NoSuchDevice, NoSuchNode
from galaxy_trio.events import TaskEnded
from galaxy_trio.graph import (
    Edge,
    Graph,
    GraphEnded,
    GraphSnapshot,
    GraphState,
    Node,
    NodeEnded,
    NodeResult,
    NodeState,
    When,
    open_graph,
)

from .support.sessions import open_tasks
from .test_run import chain, nodes, states

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio.testing import MockClock

    from galaxy_trio.events import Event
    from galaxy_trio.graph import GraphEdit, GraphRun
    from galaxy_trio.messages import JSON

    from .support.sessions import Tasks


# Attempts that end while they are withdrawn.


def _remove_device_in_this_step(tasks: Tasks) -> None:
    """Let the attempts that wait for a device fail as soon as their tasks go on."""
    tasks.constellation.devices["d1"]._stop_accepting(lambda: NoSuchDevice("device 'd1' was removed"))


async def test_node_that_is_removed_in_the_step_in_which_its_attempt_fails_does_no_harm(
    autojump_clock: MockClock,
) -> None:
    graph = Graph([Node(name, name, device="d1") for name in "ab"])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await trio.testing.wait_all_tasks_blocked()
        [running] = tasks.running
        waiting = "b" if running == "a" else "a"
        _remove_device_in_this_step(tasks)
        run.edit(lambda edit: edit.remove(waiting))
        await tasks.complete(running)
        assert set((await run.wait()).results) == {running}


async def test_node_that_is_cancelled_in_the_step_in_which_its_attempt_fails_ends_once(
    autojump_clock: MockClock,
) -> None:
    graph = Graph([Node(name, name, device="d1") for name in "ab"])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await trio.testing.wait_all_tasks_blocked()
        [running] = tasks.running
        waiting = "b" if running == "a" else "a"
        async with run.subscribe() as events:
            _remove_device_in_this_step(tasks)
            run.cancel(waiting)
            await tasks.complete(running)
            await run.wait()
            seen = [await anext(events) for _ in range(4)]
        assert seen[1:] == [
            NodeEnded(waiting, NodeState.CANCELLED, "it was cancelled"),
            NodeEnded(running, NodeState.COMPLETED),
            GraphEnded(GraphState.PARTIALLY_FAILED),
        ]


def _when_a_task_ends(tasks: Tasks, call: Callable[[], None]) -> None:
    """Call a function in the step in which a task has ended and its caller does not know yet."""

    def on_event(event: Event) -> None:
        if isinstance(event, TaskEnded):
            call()

    tasks.constellation._events._on_event = on_event


async def test_node_that_is_cancelled_in_the_step_in_which_it_fails_is_not_retried(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", retries=3)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.wait_running("a")
        _when_a_task_ends(tasks, lambda: run.cancel("a"))
        await tasks.fail("a")
        assert states(run) == {"a": "cancelled"}
        await run.wait()


async def test_node_that_is_cancelled_in_the_step_in_which_it_completes_keeps_its_result(
    autojump_clock: MockClock,
) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a"))) as run:
        await tasks.wait_running("a")
        _when_a_task_ends(tasks, run.cancel)
        await tasks.complete("a", result=5)
        result = await run.wait()
    assert (result.results["a"].state, result.results["a"].result) == (NodeState.COMPLETED, 5)


async def test_node_that_is_removed_before_its_attempt_begins_is_not_asked_for_its_text(
    autojump_clock: MockClock,
) -> None:
    asked: list[str] = []

    def make_request(node: Node, results: Mapping[str, NodeResult]) -> str:
        del results
        asked.append(node.id)
        return node.id

    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(), make_request=make_request) as run:
        run.edit(lambda edit: edit.add(Node("a", "a")))
        run.edit(lambda edit: edit.remove("a"))
        run.edit(lambda edit: edit.add(Node("b", "b")))
        run.cancel("b")
        await trio.sleep(1)
        assert (asked, states(run)) == ([], {"b": "cancelled"})


async def test_edge_that_is_removed_from_before_a_ready_node_is_not_in_its_text(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a"), *(Node(name, name, device="d1") for name in "bc")], [Edge("a", "b"), Edge("a", "c")])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.complete("a", result="of a")
        [running] = tasks.running
        waiting = "c" if running == "b" else "b"
        assert "of a" in tasks.texts[running]
        run.edit(lambda edit: edit.disconnect("a", waiting))
        await tasks.complete(running, waiting)
        await run.wait()
    assert tasks.texts[waiting] == waiting


async def test_node_that_is_tried_again_sees_the_results_that_those_before_it_have_then(
    autojump_clock: MockClock,
) -> None:
    graph = Graph(
        [Node("a", "a", device="d1"), Node("b", "b", device="d2", retries=1, backoff=0)], [Edge("a", "b", When.FAILURE)]
    )
    async with (
        open_tasks("d1", "d2") as tasks,
        open_graph(tasks.constellation, graph) as run,
        trio.open_nursery() as nursery,
    ):
        await tasks.fail("a")
        await tasks.wait_running("b")
        run.retry("a")
        await tasks.wait_running("a", "b")
        nursery.start_soon(tasks.constellation.devices["d2"].run_task, "another")
        await tasks.fail("b")
        # It waits for its device, and a has no result yet.
        assert (tasks.running, states(run)["b"]) == ({"a", "another"}, "ready")
        await tasks.complete("a", result="of a")
        await tasks.complete("another", "b")
        assert (await run.wait()).state is GraphState.COMPLETED
    assert "of a" in tasks.texts["b"]


async def test_node_that_is_tried_again_sees_that_the_one_before_it_runs_again(autojump_clock: MockClock) -> None:
    graph = Graph(
        [Node("a", "a", device="d1"), Node("b", "b", device="d2", retries=1, backoff=0)], [Edge("a", "b", When.FAILURE)]
    )
    async with (
        open_tasks("d1", "d2") as tasks,
        open_graph(tasks.constellation, graph) as run,
        trio.open_nursery() as nursery,
    ):
        await tasks.fail("a")
        await tasks.wait_running("b")
        for device_id in ("d1", "d2"):
            nursery.start_soon(tasks.constellation.devices[device_id].run_task, f"on {device_id}")
        await tasks.wait_running("b", "on d1")
        run.retry("a")
        await tasks.fail("b")
        # Both wait for their devices.
        assert states(run) == {"a": "ready", "b": "ready"}
        await tasks.complete("on d1")
        await tasks.wait_running("a", "on d2")
        await tasks.complete("on d2")
        await tasks.wait_running("a", "b")
        assert '"state": "running"' in tasks.texts["b"]
        await tasks.complete("a", "b")
        await run.wait()


async def test_node_that_is_tried_again_sees_the_result_of_one_that_was_skipped_when_it_ran_first(
    autojump_clock: MockClock,
) -> None:
    graph = Graph(
        [Node("a", "a", device="d1"), Node("b", "b", device="d1"), Node("c", "c", device="d2", retries=1, backoff=0)],
        [Edge("a", "b"), Edge("b", "c", When.END)],
    )
    async with (
        open_tasks("d1", "d2") as tasks,
        open_graph(tasks.constellation, graph) as run,
        trio.open_nursery() as nursery,
    ):
        await tasks.fail("a")
        await tasks.wait_running("c")
        run.retry("a")
        nursery.start_soon(tasks.constellation.devices["d2"].run_task, "another")
        await tasks.fail("c")
        await tasks.complete("a")
        await tasks.complete("b", result="of b")
        assert states(run)["c"] == "ready"
        await tasks.complete("another", "c")
        assert (await run.wait()).state is GraphState.COMPLETED
    assert "of b" in tasks.texts["c"]


async def test_node_of_a_snapshot_sees_the_results_that_those_before_it_have_when_it_runs(
    autojump_clock: MockClock,
) -> None:
    graph = Graph([Node("a", "a", device="d1"), Node("b", "b", device="d2")], [Edge("a", "b", When.FAILURE, id="e")])
    # a failed, and was retried; b is tried again.
    snapshot = GraphSnapshot(
        graph, nodes={"a": NodeResult(attempt=1), "b": NodeResult(attempt=1)}, decisions={"e": True}
    )
    async with open_tasks("d1", "d2") as tasks, trio.open_nursery() as nursery:
        nursery.start_soon(tasks.constellation.devices["d2"].run_task, "another")
        await tasks.wait_running("another")
        async with open_graph(tasks.constellation, snapshot) as run:
            await tasks.wait_running("a", "another")
            await tasks.complete("a", result="of a")
            await tasks.complete("another", "b")
            assert (await run.wait()).state is GraphState.COMPLETED
    assert "of a" in tasks.texts["b"]


# Functions that the graph calls.

CHANGES: list[Callable[[GraphRun], object]] = [
    lambda run: run.edit(lambda edit: edit.remove("b")),
    lambda run: run.cancel(),
    lambda run: run.cancel("b"),
    lambda run: run.retry("a"),
    lambda run: run.hold("b").__enter__(),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_graph_is_not_changed_inside_an_edit(
    change: Callable[[GraphRun], object], autojump_clock: MockClock
) -> None:
    def edit(edit: GraphEdit) -> None:
        edit.remove("b")
        change(run)

    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b", "c")) as run:
        await tasks.wait_running("a")
        before = run.snapshot()
        with pytest.raises((RuntimeError, GraphError)):
            run.edit(edit)
        assert run.snapshot() == before
        await tasks.complete("a", "b", "c")
        assert (await run.wait()).state is GraphState.COMPLETED


@pytest.mark.parametrize("change", CHANGES)
async def test_condition_that_changes_the_graph_ends_the_block_and_changes_nothing(
    change: Callable[[GraphRun], object], autojump_clock: MockClock
) -> None:
    def condition(result: JSON) -> bool:
        del result
        change(run)
        return True

    graph = Graph(nodes("a", "b"), [Edge("a", "b", When.CONDITION, condition=condition)])
    with pytest.raises((RuntimeError, GraphError)):
        async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
            await tasks.complete("a")
            await trio.sleep_forever()
    assert run.states["b"] is NodeState.WAITING


async def test_request_may_be_made_by_a_function_that_changes_the_graph(autojump_clock: MockClock) -> None:
    def make_request(node: Node, results: Mapping[str, NodeResult]) -> str:
        del results
        if node.id == "a":
            run.edit(lambda edit: edit.add(Node("c", "c")))
            run.cancel("b")
        if node.id == "c":
            run.edit(lambda edit: edit.remove("c"))
        return node.request

    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, Graph([Node("a", "a")]), make_request=make_request) as run,
    ):
        run.edit(lambda edit: edit.add(Node("b", "b"), after="a"))
        await tasks.complete("a")
        assert {name: node.state.value for name, node in (await run.wait()).results.items()} == {
            "a": "completed",
            "b": "cancelled",
        }


async def test_error_of_make_request_comes_out_even_if_it_is_one_of_ours(autojump_clock: MockClock) -> None:
    def broken(node: Node, results: Mapping[str, NodeResult]) -> str:
        raise NoSuchNode(f"{node}{results}")

    with pytest.raises(NoSuchNode):
        async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a")), make_request=broken):
            await trio.sleep_forever()


@pytest.mark.parametrize("max_concurrent", [None, 1])
async def test_exception_of_where_comes_out_of_the_block_and_not_of_what_started_the_node(
    max_concurrent: int | None, autojump_clock: MockClock
) -> None:
    def broken(profile: object) -> bool:
        raise ZeroDivisionError(profile)

    edited = False
    with pytest.raises(ZeroDivisionError):
        async with (
            open_tasks() as tasks,
            open_graph(tasks.constellation, Graph(), max_concurrent=max_concurrent) as run,
        ):
            run.edit(lambda edit: edit.add(Node("a", "a", where=broken)))
            edited = True
            await trio.sleep_forever()
    assert edited


async def test_condition_that_raises_at_the_end_of_a_hold_ends_the_block_although_it_is_caught(
    autojump_clock: MockClock,
) -> None:
    def broken(result: JSON) -> bool:
        raise ZeroDivisionError(result)

    graph = Graph(nodes("a", "b"), [Edge("a", "b", When.CONDITION, condition=broken)])
    with pytest.raises(ZeroDivisionError):
        async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
            await tasks.wait_running("a")
            with contextlib.suppress(ZeroDivisionError), run.hold("a"):
                await tasks.complete("a")
            await run.wait()


async def test_edit_after_a_change_of_it_was_refused_has_nothing_of_that_change(autojump_clock: MockClock) -> None:
    def edit(edit: GraphEdit) -> None:
        with pytest.raises(NoSuchNode):
            edit.add(Node("c", "c"), after=["a", "nothing"])
        edit.add(Node("d", "d"))

    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b")) as run:
        run.edit(edit)
        assert set(run.states) == {"a", "b", "d"}
        await tasks.wait_running("a", "d")
