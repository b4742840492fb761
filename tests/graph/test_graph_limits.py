"""Limits of what a graph holds, in bytes: each has an error that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio.errors import GraphError, GraphFailed, GraphTooLarge
from galaxy_trio.events import EventsLost
from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphEdited,
    GraphResult,
    GraphSnapshot,
    GraphState,
    Node,
    NodeResult,
    NodeRetried,
    NodeState,
    When,
    open_graph,
)
from galaxy_trio.graph.memory_tables import MemoryTables
from galaxy_trio.graph.model import MAX_REQUEST
from galaxy_trio.graph.ready_queue import ReadyQueue

from .support.sessions import open_tasks
from .test_run import nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from galaxy_trio.graph import GraphEdit
    from galaxy_trio.messages import JSON

HUGE = "x" * 2_500
MUCH: list[JSON] = [HUGE] * 4
TOO_LARGE = "take at most 10,000 bytes of memory together, and those of this one take"


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galaxy_trio.graph.model.MAX_SIZE", 10_000)
    monkeypatch.setattr("galaxy_trio.graph.memory_tables.MAX_RESULTS", 10_000)
    monkeypatch.setattr("galaxy_trio.events.MAX_INFORMATION", 10_000)


def _when(value: str) -> Edge:
    return Edge("a", "b", When.CONDITION, condition=Condition("", "eq", value))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Graph([Node(f"n{number}", HUGE) for number in range(4)]),
        lambda: Graph([Node("a", "x", tips=[HUGE] * 4)]),
        lambda: Graph([Node("a", "x", name=HUGE), Node("b", "x", os=HUGE), *nodes("c")], [_when(HUGE), _when(HUGE)]),
        lambda: Graph([Node("a", "x", metadata={"a": MUCH[:2]}), Node("b", "x", metadata={HUGE: {"b": HUGE}})]),
        lambda: Graph([Node("a", "x", capabilities=[HUGE]), Node("b", "x", device=HUGE + HUGE + HUGE)]),
        lambda: Graph(nodes("a", "b"), [Edge("a", "b", metadata={"a": MUCH})]),
        lambda: Graph(nodes("a", "b"), metadata={"a": MUCH}),
    ],
)
@pytest.mark.usefixtures("low_limits")
def test_graph_with_too_many_bytes_of_text_and_data_is_refused(make: Callable[[], Graph]) -> None:
    with pytest.raises(GraphTooLarge, match=TOO_LARGE):
        make()


def test_texts_of_a_graph_are_at_most_256_mib() -> None:
    request = "x" * MAX_REQUEST
    Graph([Node(f"n{number}", request) for number in range(255)])
    with pytest.raises(GraphTooLarge, match="take at most 268,435,456 bytes of memory together"):
        Graph([Node(f"n{number}", request) for number in range(256)])


CHANGES: list[Callable[[GraphEdit], None]] = [
    lambda edit: edit.add(Node("c", HUGE, tips=[HUGE, HUGE])),
    lambda edit: edit.replace(Node("b", "b", tips=[HUGE, HUGE, HUGE])),
    lambda edit: edit.connect(_when(HUGE + HUGE)),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("low_limits")
async def test_edit_that_adds_too_many_bytes_is_refused(
    change: Callable[[GraphEdit], None], autojump_clock: MockClock
) -> None:
    graph = Graph([Node("a", "a"), Node("b", "b", tips=[HUGE]), Node("d", "d", tips=[HUGE])], [_when(HUGE)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        with pytest.raises(GraphTooLarge, match=TOO_LARGE):
            run.edit(change)
        assert run.snapshot().graph.nodes == graph.nodes


@pytest.mark.usefixtures("low_limits")
async def test_what_an_edit_removes_or_replaces_makes_room(autojump_clock: MockClock) -> None:
    def swap(edit: GraphEdit) -> None:
        edit.remove("b")
        edit.replace(Node("c", "c"))
        edit.disconnect("d", "e")
        edit.add(Node("f", "f", tips=[HUGE, HUGE, HUGE]))

    graph = Graph(
        [Node("a", "a"), *(Node(name, name, tips=[HUGE]) for name in "bc"), *nodes("d", "e")],
        [Edge("a", "b"), Edge("a", "c"), Edge("d", "e", When.CONDITION, condition=Condition("", "eq", HUGE))],
    )
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        run.edit(swap)
        with pytest.raises(GraphTooLarge, match=TOO_LARGE):
            run.edit(lambda edit: edit.add(Node("g", "g", tips=[HUGE])))
        run.edit(lambda edit: edit.remove("f"))
        run.edit(lambda edit: edit.add(Node("g", "g", tips=[HUGE, HUGE, HUGE])))
        with pytest.raises(GraphTooLarge, match=TOO_LARGE):
            run.edit(lambda edit: edit.add(Node("h", "h", tips=[HUGE])))


def test_unknown_kind_of_edge_and_endless_ids_are_refused() -> None:
    assert Edge("a", "b", "failure").when is When.FAILURE
    with pytest.raises(GraphError, match="an edge's when is one of success, failure, condition, end, not 'sucess'"):
        Edge("a", "b", "sucess")
    for ends in (("x" * 201, "b"), ("a", "x" * 100_000)):
        with pytest.raises(GraphError, match=r"a node id has at most 200 characters$") as caught:
            Edge(*ends)
        assert len(str(caught.value)) < 2_100


@pytest.mark.usefixtures("low_limits")
async def test_node_whose_result_would_be_too_large_with_the_others_fails_and_is_not_retried(
    autojump_clock: MockClock,
) -> None:
    graph = Graph([Node("a", "a"), Node("b", "b", retries=3), Node("c", "c")], [Edge("b", "c")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.complete("a", result="x" * 6_000)
        await tasks.complete("b", result="x" * 6_000)
        result = await run.wait()
        assert sorted(tasks.started) == ["a", "b"]
        assert (result.results["b"].state, result.results["b"].result) == (NodeState.FAILED, None)
        assert result.results["b"].error == (
            "its result was dropped: the results of a graph take at most 1,073,741,824 bytes of memory together"
        )
        run.retry("b")
        await tasks.complete("b", result="x" * 3_000)
        await tasks.fail("c", why="y" * 6_000)
        result = await run.wait()
    assert result.results["b"].result == "x" * 3_000
    assert "its result was dropped" in str(result.results["c"].error)


@pytest.mark.usefixtures("low_limits")
async def test_result_of_an_attempt_that_is_too_large_is_not_kept_until_the_next_one(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph([Node("a", "a", retries=2)])) as run:
        for size, kept in ((5_000, "x" * 5_000), (20_000, None)):
            await tasks.wait_running("a")
            async with run.subscribe() as events:
                await tasks.fail("a", result="x" * size)
                assert [type(await anext(events)) for _ in range(2)] == [GraphSnapshot, NodeRetried]
            assert (run.snapshot().node("a").result, run.snapshot().node("a").error) == (kept, "it broke")
        await tasks.complete("a")
        assert (await run.wait()).state is GraphState.COMPLETED


@pytest.mark.usefixtures("low_limits")
def test_results_make_room_when_they_are_replaced_or_their_nodes_removed() -> None:
    tables = MemoryTables()
    a, b = tables.add_node(Node("a", "a")), tables.add_node(Node("b", "b"))
    for _ in range(3):
        assert tables.keep_result(a, "x" * 9_000, None)
        assert not tables.keep_result(b, None, "y" * 9_000)
        assert (b.result, b.error) == (None, None)
        tables.remove_node("a")
        a = tables.add_node(Node("a", "a"))
        assert tables.keep_result(b, None, "y" * 9_000)
        assert tables.keep_result(b, None, None)


@pytest.mark.usefixtures("low_limits")
async def test_snapshot_whose_results_are_too_large_is_refused() -> None:
    snapshot = GraphSnapshot(Graph(nodes("a")), nodes={"a": NodeResult(NodeState.COMPLETED, 1, "x" * 10_000)})
    async with open_tasks() as tasks:
        with pytest.raises(GraphTooLarge, match="the snapshot's results are too large: the results of a graph take"):
            async with open_graph(tasks.constellation, snapshot):
                raise AssertionError


async def test_snapshot_in_which_a_node_waits_for_an_edge_that_does_not_hold_is_refused() -> None:
    snapshot = GraphSnapshot(
        Graph(nodes("a", "b"), [Edge("a", "b", id="e")]),
        nodes={"a": NodeResult(NodeState.FAILED, 1)},
        decisions={"e": False},
    )
    async with open_tasks() as tasks:
        with pytest.raises(GraphError, match="the snapshot's node 'b' waits, although its edge 'e' does not hold"):
            async with open_graph(tasks.constellation, snapshot):
                raise AssertionError


@pytest.mark.usefixtures("low_limits")
async def test_subscriber_that_lags_behind_large_edits_loses_the_oldest(autojump_clock: MockClock) -> None:
    def replace(edit: GraphEdit) -> None:
        for number in range(10):
            edit.replace(Node(f"{number:0151}", "x"))

    names = ["first", *(f"{number:0151}" for number in range(10))]
    graph = Graph([Node(name, "x") for name in names], [Edge("first", name) for name in names[1:]])
    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, graph) as run,
        run.subscribe() as events,
    ):
        for _ in range(10):
            run.edit(replace)
        # Each of them has 10 ids of 200 bytes.
        assert await anext(events) == EventsLost(7)
        assert [type(await anext(events)) for _ in range(4)] == [GraphEdited] * 4


def test_error_of_a_failed_graph_is_short() -> None:
    result = GraphResult(GraphState.FAILED, {"a": NodeResult(NodeState.FAILED, 1, None, "x" * 10**6)})
    with pytest.raises(GraphFailed) as caught:
        result.unwrap()
    assert len(str(caught.value)) < 1_100


async def test_text_that_cannot_be_sent_fails_its_node_and_is_not_lost(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "\ud800", retry_lost=True, retries=1)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        result = await run.wait()
    assert result.results["a"].state is NodeState.FAILED
    assert result.results["a"].error == "its text contains a lone surrogate, which cannot be sent"


def test_nodes_that_are_ready_again_and_again_leave_nothing_in_their_queue() -> None:
    queue = ReadyQueue()
    for number in range(150):
        queue.add(Node(f"n{number}", "x"))
    first = queue.take()
    assert first is not None
    for _ in range(99):
        assert queue.take() is not None
    assert queue.take() is None
    for number in range(20_001):
        queue.discard("n149")
        queue.add(Node("n149", "x"))
        if number % 2:
            assert queue.take() is None
    assert sum(len(each._heap) for each in (queue._queue, *queue._parked.values())) < 300
    order: list[str] = []
    for _ in range(50):
        queue.release(first)
        taken = queue.take()
        assert taken is not None
        order.append(taken.id)
    assert order == [f"n{number}" for number in range(100, 150)]
    assert queue.take() is None
