"""The progress of a graph, followed by its events."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio._cli.graph.progress import GraphProgress, counts_in_words, trio_time
from galaxy_trio._concurrency import wall_clock
from galaxy_trio.events import EventsLost
from galaxy_trio.graph import (
    Edge,
    Graph,
    GraphEnded,
    GraphRun,
    GraphSnapshot,
    Node,
    NodeReady,
    NodeResult,
    NodeRetried,
    NodeState,
    NodeWaiting,
    When,
    open_graph,
)
from tests.graph.support.sessions import Tasks, open_tasks

if TYPE_CHECKING:
    from trio.testing import MockClock


def states(progress: GraphProgress) -> dict[str, NodeState]:
    return {node_id: node.state for node_id, node in progress.nodes.items()}


async def test_attempts_devices_times_and_errors_are_followed(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", retries=1, backoff=60), Node("b", "b")], [Edge("a", "b")])
    async with open_tasks("d1") as tasks, open_graph(tasks.constellation, graph, random=random.Random(1)) as run:
        progress = GraphProgress(run.snapshot())
        async with run.subscribe() as events:

            async def follow() -> None:
                async for event in events:
                    progress.apply(event, run)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                await tasks.wait_running("a")
                await trio.sleep(7)
                a, b = progress.nodes["a"], progress.nodes["b"]
                assert (a.state, a.layer, a.attempt, a.device_id) == (NodeState.RUNNING, 1, 1, "d1")
                assert a.seconds() == pytest.approx(7)
                await tasks.fail("a", why="no paper")
                assert (a.state, a.error) == (NodeState.READY, "no paper")
                assert a.next_try is not None
                assert trio.current_time() < a.next_try <= trio.current_time() + 60
                await tasks.wait_running("a")
                assert [a.attempt, a.error, a.next_try] == [2, None, None]
                await trio.sleep(3)
                await tasks.complete("a")
                await trio.sleep(5)
                assert (a.state, b.state, b.layer) == (NodeState.COMPLETED, NodeState.RUNNING, 2)
                assert [a.seconds(), b.seconds()] == [pytest.approx(3), pytest.approx(5)]
                assert dict(+progress.counts) == {NodeState.COMPLETED: 1, NodeState.RUNNING: 1}
                nursery.cancel_scope.cancel()


async def _finish(tasks: Tasks, run: GraphRun, choices: random.Random) -> None:
    """Let tasks end in any way until the graph has ended."""
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            while True:
                await trio.sleep(1)
                for request in sorted(tasks.running):
                    await (tasks.complete if choices.random() < 0.5 else tasks.fail)(request)

        nursery.start_soon(end)
        await run.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(20))
async def test_states_are_those_of_the_graph_whatever_happens(seed: int, autojump_clock: MockClock) -> None:
    choices = random.Random(seed)
    nodes = [Node(str(number), str(number), retries=number % 2, backoff=0.1) for number in range(12)]
    edges = [
        Edge(str(source), str(target), choices.choice([When.SUCCESS, When.FAILURE, When.END]))
        for target in range(12)
        for source in range(target)
        if choices.random() < 0.2
    ]
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes, edges)) as run:
        # A small backlog, so that events are lost.
        async with run.subscribe(backlog=choices.choice([1, 3, 1_000])) as events:
            progress = GraphProgress(run.snapshot())
            run.edit(lambda edit: edit.add(Node("new", "new"), after=["0"]))
            if seed % 4 == 0:
                run.cancel("11")
            await _finish(tasks, run, choices)
            async for event in events:
                progress.apply(event, run)
                if isinstance(event, GraphEnded):
                    break
        assert states(progress) == run.states
        assert {state: count for state, count in progress.counts.items() if count} == {
            state: count for state, count in run.statistics().nodes.items() if count
        }


async def test_lost_events_are_replaced_by_a_snapshot_and_later_ones_of_removed_nodes_are_ignored(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall_clock, "source", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    graph = Graph([Node("a", "a"), Node("b", "b")], [Edge("a", "b")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        progress = GraphProgress(GraphSnapshot(graph))
        await tasks.wait_running("a")
        run.edit(lambda edit: edit.remove("b"))
        assert progress.apply(EventsLost(3), run) is None
        assert states(progress) == {"a": NodeState.RUNNING}
        assert progress.apply(NodeReady("b"), run) is None
        await trio.sleep(4)
        progress.apply(EventsLost(3), run)
        assert progress.nodes["a"].seconds() == pytest.approx(4)


async def test_node_that_runs_when_it_is_first_seen_has_run_since_it_started() -> None:
    started = datetime.now(UTC) - timedelta(minutes=3)
    running = NodeResult(NodeState.RUNNING, 1, device_id="d1", started=started)
    progress = GraphProgress(GraphSnapshot(Graph([Node("a", "a")]), nodes={"a": running}))
    assert progress.nodes["a"].seconds() == pytest.approx(180, abs=60)
    # The daemon's clock may be ahead of ours.
    assert trio_time(datetime.now(UTC) + timedelta(minutes=3)) <= trio.current_time()


async def test_node_that_waits_again_has_no_reason_left(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph()) as run:
        progress = GraphProgress(GraphSnapshot(Graph([Node("a", "a", retries=5)])))
        node = progress.apply(NodeRetried("a", 1, "no paper", 3), run)
        assert node is not None
        assert (node.state, node.error) == (NodeState.READY, "no paper")
        progress.apply(NodeWaiting("a"), run)
        assert (node.state, node.error, node.next_try) == (NodeState.WAITING, None, None)


def test_times_of_an_earlier_run_are_kept() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    result = NodeResult(NodeState.COMPLETED, 2, started=began, ended=began + timedelta(seconds=9))
    progress = GraphProgress(GraphSnapshot(Graph([Node("a", "a"), Node("b", "b")]), nodes={"a": result}))
    assert [node.seconds() for node in progress.nodes.values()] == [9, None]


def test_counts_have_the_order_in_which_a_person_looks_for_them() -> None:
    assert counts_in_words({}) == "no nodes"
    counts = {NodeState.COMPLETED: 2_000, NodeState.WAITING: 1, NodeState.FAILED: 3, NodeState.RUNNING: 0}
    assert counts_in_words(counts) == "3 failed, 1 waiting, 2,000 completed"
