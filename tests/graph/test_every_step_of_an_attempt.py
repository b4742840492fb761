"""A change at any step of an attempt: the node ends as it should, is sent at most once for each attempt, and leaves nothing behind."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import TaskFailed, open_constellation
from galaxy_trio.graph import Edge, Graph, GraphState, Node, NodeState, When, open_graph
from galaxy_trio.testing import open_memory_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from galaxy_trio.graph import GraphRun
    from galaxy_trio.server import ServerTask

STEPS = 70
"""An attempt on a device that answers immediately takes fewer."""


def hold(run: GraphRun) -> None:
    with run.hold("a"):
        pass


def replace(run: GraphRun) -> None:
    if run.states["a"] in (NodeState.WAITING, NodeState.READY):
        run.edit(lambda edit: edit.replace(Node("a", "a", retries=1, backoff=0)))


def remove(run: GraphRun) -> None:
    if run.states["a"] in (NodeState.WAITING, NodeState.READY):
        run.edit(lambda edit: edit.remove("a"))
        run.edit(lambda edit: edit.add(Node("a", "a", retries=1, backoff=0)))


def wait_again(run: GraphRun) -> None:
    if run.states["a"] in (NodeState.WAITING, NodeState.READY):
        run.edit(lambda edit: edit.connect(Edge("c", "a", When.END)))


def cancel_and_retry(run: GraphRun) -> None:
    run.cancel("a")
    if run.states["a"] is NodeState.CANCELLED:
        run.retry("a")


CHANGES: list[tuple[Callable[[GraphRun], None], set[str]]] = [
    (hold, {"completed"}),
    (replace, {"completed"}),
    (remove, {"completed"}),
    (wait_again, {"completed"}),
    (lambda run: run.cancel("a"), {"completed", "cancelled"}),
    (lambda run: run.cancel(), {"completed", "cancelled"}),
    (cancel_and_retry, {"completed", "cancelled"}),
]


@pytest.mark.parametrize(("change", "ends"), CHANGES)
async def test_change_at_any_step_of_an_attempt(
    change: Callable[[GraphRun], None], ends: set[str], autojump_clock: MockClock
) -> None:
    """The first attempt of each node fails, so that there are two."""
    sent = Counter[str]()

    async def session(task: ServerTask) -> str:
        await trio.lowlevel.checkpoint()
        sent[task.request] += 1
        if sent[task.request] == 1:
            raise TaskFailed("it broke")
        return task.request

    seen = set[str]()
    async with (
        open_memory_fleet("d1", session=session) as fleet,
        open_constellation(fleet.configs, connect=fleet.connect) as constellation,
    ):
        await constellation.wait_connected()
        graph = Graph([Node(name, name, retries=1, backoff=0) for name in "abc"], [Edge("a", "b", When.END)])
        for steps in range(STEPS):
            sent.clear()
            async with open_graph(constellation, graph, max_concurrent=1, make_request=lambda node, _: node.id) as run:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                change(run)
                with trio.fail_after(100):
                    result = await run.wait()
                seen.add(result.results["a"].state.value)
                for name, node in result.results.items():
                    # The attempts of a node that was removed do not count for the new one.
                    attempts = node.attempt + (change is remove and sent[name] > node.attempt)
                    assert sent[name] <= attempts <= 2
                    assert node.state is not NodeState.COMPLETED or sent[name] == attempts == 2
                assert run.statistics().attempts <= 6
            assert result.state is not GraphState.RUNNING
            # The connections of stopped tasks are still being closed.
            with trio.fail_after(100):
                while constellation.statistics().running + constellation.statistics().queued:
                    await trio.lowlevel.checkpoint()
    assert seen == ends
