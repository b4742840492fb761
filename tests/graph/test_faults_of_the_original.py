"""What the original's task graphs get wrong, and these must not: each of its measured faults as a test."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphEdit,
    GraphState,
    Node,
    NodeState,
    When,
    graph_document,
    open_graph,
    read_graph,
)
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode
from galaxy_trio.graph.state_machine import StateMachine

from .support.counting_tables import CountingTables
from .support.sessions import open_tasks
from .test_run import chain, nodes, states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from galaxy_trio.errors import GraphError
    from galaxy_trio.graph import Change, GraphSnapshot, NodeEnded
    from galaxy_trio.messages import JSON

CONDITION = Condition("/ok", "truthy")


# Failures and conditions.


async def test_failure_with_a_result_does_not_leave_success_dependants_pending(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b", "c")) as run:
        await tasks.fail("a", result={"partial": True})
        with trio.fail_after(1):
            result = await run.wait()
    assert result.results["a"].result == {"partial": True}
    assert {name: node.state.value for name, node in result.results.items()} == {
        "a": "failed",
        "b": "skipped",
        "c": "skipped",
    }


async def test_task_that_raises_does_not_satisfy_success_dependants(autojump_clock: MockClock) -> None:
    graph = Graph([Node("a", "a", timeout=5), *nodes("b", "c", "d")], [Edge("a", "b"), Edge("c", "d")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.fail("c")
        result = await run.wait()
        assert sorted(tasks.started) == ["a", "c"]
    assert result.results["b"].state is result.results["d"].state is NodeState.SKIPPED


async def test_condition_that_evaluates_to_false_does_not_hang_the_graph(autojump_clock: MockClock) -> None:
    graph = Graph(nodes("a", "b"), [Edge("a", "b", When.CONDITION, condition=CONDITION)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        await tasks.complete("a", result={"ok": False})
        with trio.fail_after(1):
            assert (await run.wait()).state is GraphState.COMPLETED


# Kinds of edges.


@pytest.mark.parametrize("when", [When.SUCCESS, When.CONDITION])
async def test_edit_by_a_planner_does_not_make_edges_unconditional(when: When, autojump_clock: MockClock) -> None:
    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> Change | None:
        del snapshot, error
        await trio.lowlevel.checkpoint()
        return (lambda edit: edit.add(Node("c", "c"), after="a")) if ends[0].node_id == "a" else None

    condition = CONDITION if when is When.CONDITION else None
    graph = Graph(nodes("a", "b", "x"), [Edge("x", "b", when, condition=condition)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph, planner=plan) as run:
        await tasks.complete("a", "c")
        await tasks.fail("x", result={"ok": True})
        result = await run.wait()
    assert result.results["b"].state is NodeState.SKIPPED


@pytest.mark.parametrize("when", [When.SUCCESS, When.CONDITION])
async def test_edge_that_an_edit_adds_does_not_run_its_target_after_a_failure(
    when: When, autojump_clock: MockClock
) -> None:
    def change(edit: GraphEdit) -> None:
        edit.connect(Edge("a", "b", when, condition=CONDITION if when is When.CONDITION else None))
        edit.replace(Node("b", "b2"))

    graph = Graph(nodes("a", "b", "x"), [Edge("x", "b", When.END)])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph) as run:
        run.edit(change)
        await tasks.fail("a", result={"ok": True})
        await tasks.complete("x")
        result = await run.wait()
        assert sorted(tasks.started) == ["a", "x"]
    assert result.results["b"].state is NodeState.SKIPPED


def _original_document(kind: str, *, written_by_model: bool) -> dict[str, JSON]:
    """Make a document of the original with one dependency, in the form that it writes, or in that of its model."""
    line: dict[str, JSON] = {"from_task_id": "a", "to_task_id": "b", "dependency_type": kind}
    if kind.lower() == "conditional":
        line |= {"line_id": "line_001"}
    if written_by_model:
        return {
            "tasks": [{"task_id": name, "description": name, "priority": "HIGH"} for name in "ab"],
            "dependencies": [line | {"dependency_type": kind.upper()}],
        }
    return {
        "constellation_id": "c",
        "tasks": {name: {"task_id": name, "description": name, "status": "pending"} for name in "ab"},
        "dependencies": {"line_001": line | {"line_id": "line_001"}},
    }


@pytest.mark.parametrize("written_by_model", [False, True])
@pytest.mark.parametrize("kind", ["success_only", "conditional"])
async def test_import_does_not_make_edges_unconditional(
    kind: str, written_by_model: bool, autojump_clock: MockClock
) -> None:
    snapshot = read_graph(
        _original_document(kind, written_by_model=written_by_model), conditions={"line_001": lambda _: True}
    )
    async with open_tasks() as tasks, open_graph(tasks.constellation, snapshot) as run:
        await tasks.fail("a", result={"ok": True})
        result = await run.wait()
        assert tasks.started == ["a"]
    assert result.results["b"].state is NodeState.SKIPPED


@pytest.mark.parametrize("written_by_model", [False, True])
async def test_condition_of_an_imported_edge_is_not_ignored(written_by_model: bool, autojump_clock: MockClock) -> None:
    for is_met in (True, False):
        snapshot = read_graph(
            _original_document("conditional", written_by_model=written_by_model),
            conditions={"line_001": lambda result, is_met=is_met: is_met and result == 1},  # type: ignore[misc]
        )
        async with open_tasks() as tasks, open_graph(tasks.constellation, snapshot) as run:
            await tasks.complete("a", result=1)
            assert (run.states["b"] is NodeState.RUNNING) is is_met


async def test_graph_that_is_written_and_imported_again_does_not_lose_the_kinds_of_its_edges(
    autojump_clock: MockClock,
) -> None:
    graph = Graph(
        nodes("a", *(str(when) for when in When)),
        [Edge("a", str(when), when, condition=CONDITION if when is When.CONDITION else None) for when in When],
    )
    forms: tuple[Literal["ours", "original"], ...] = ("ours", "original")
    for form in forms:
        snapshot = read_graph(graph_document(graph, format=form))
        async with open_tasks() as tasks, open_graph(tasks.constellation, snapshot) as run:
            await tasks.fail("a", result={"ok": True})
            assert states(run) == {
                "a": "failed",
                "success": "skipped",
                "failure": "running",
                "condition": "skipped",
                "end": "running",
            }


# Cancelling.


async def test_cancelling_does_not_raise(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b")) as run:
        await tasks.wait_running("a")
        run.cancel("b")
        run.cancel()
        run.cancel()
        assert (await run.wait()).state is GraphState.CANCELLED
        run.cancel()


async def test_cancelling_does_not_leave_work_running_on_a_device(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a", "b"))) as run:
        await tasks.wait_running("a", "b")
        run.cancel()
        await run.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert (tasks.running, sorted(tasks.stopped)) == (set(), ["a", "b"])


async def test_cancelled_graph_does_not_make_later_graphs_unusable(autojump_clock: MockClock) -> None:
    async with open_tasks("d1") as tasks:
        async with open_graph(tasks.constellation, chain("a", "b")) as run:
            await tasks.wait_running("a")
            run.cancel()
            await run.wait()
        async with open_graph(tasks.constellation, chain("c", "d")) as run:
            await tasks.complete("c", "d")
            assert (await run.wait()).state is GraphState.COMPLETED


# Edits.


async def test_completion_that_arrives_during_an_edit_is_not_lost(autojump_clock: MockClock) -> None:
    """The edit is made from a snapshot that is older than the completion."""
    ended = trio.Event()

    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> Change | None:
        del error
        if ends[0].node_id != "a":
            return None
        assert snapshot.node("b").state is NodeState.RUNNING
        await ended.wait()
        return lambda edit: edit.add(Node("c", "c"), after=["a", "b"])

    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph(nodes("a", "b")), planner=plan) as run:
        await tasks.wait_running("a", "b")
        await tasks.complete("a")
        await tasks.complete("b", result="late")
        ended.set()
        await tasks.complete("c")
        with trio.fail_after(1):
            result = await run.wait()
    assert result.unwrap() == {"a": None, "b": "late", "c": None}


async def test_edit_does_not_delay_other_branches(autojump_clock: MockClock) -> None:
    """The original stops all branches for 1 s at least, and for 600 s while its model does not answer."""
    thinking = trio.Event()

    async def plan(ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None) -> None:
        del snapshot, error
        if ends[0].node_id == "a":
            thinking.set()
            await trio.sleep(599)

    graph = Graph(nodes("a", "a2", "b", "b2", "b3"), [Edge("a", "a2"), Edge("b", "b2"), Edge("b2", "b3")])
    async with open_tasks() as tasks, open_graph(tasks.constellation, graph, planner=plan) as run:
        await tasks.complete("a")
        await thinking.wait()
        begin = trio.current_time()
        with run.hold("b"):
            run.edit(lambda edit: edit.add(Node("c", "c"), after="a"))
            run.edit(lambda edit: edit.add(Node("free", "free")))
            await tasks.wait_running("b", "free")
            run.edit(lambda edit: edit.replace(Node("b2", "b2")))
        assert trio.current_time() == begin


async def test_retries_of_a_node_are_not_ignored(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, Graph([Node("a", "a", retries=1)])) as run:
        await tasks.fail("a")
        await tasks.complete("a")
        result = await run.wait()
    assert (result.results["a"].state, result.results["a"].attempt) == (NodeState.COMPLETED, 2)


async def test_added_node_does_not_wait_for_the_end_of_one_that_runs(autojump_clock: MockClock) -> None:
    async with open_tasks() as tasks, open_graph(tasks.constellation, chain("a", "b")) as run:
        await tasks.complete("a")
        await tasks.wait_running("b")
        begin = trio.current_time()
        run.edit(lambda edit: edit.add(Node("c", "c"), after="a"))
        await tasks.wait_running("b", "c")
        assert trio.current_time() == begin
        assert states(run) == {"a": "completed", "b": "running", "c": "running"}


# Large graphs.


def _layers(count: int, width: int) -> Graph:
    """Make layers of nodes, each connected to all of the next layer."""
    layers = [[f"n{layer}-{number}" for number in range(width)] for layer in range(count)]
    return Graph(
        [Node(name, name) for layer in layers for name in layer],
        [Edge(a, b) for layer, after in itertools.pairwise(layers) for a in layer for b in after],
    )


@pytest.mark.parametrize(("count", "width"), [(2_000, 1), (20, 20)])
@pytest.mark.parametrize("end", [NodeState.COMPLETED, NodeState.FAILED])
def test_scheduling_does_not_look_at_all_nodes_for_each_end(count: int, width: int, end: NodeState) -> None:
    tables = CountingTables()
    machine = StateMachine[LiveNode, LiveEdge](tables, lambda _: True)
    graph = _layers(count, width)

    def build(edit: GraphEdit) -> None:
        for node in graph.nodes:
            edit.add(node)
        for edge in graph.edges:
            edit.connect(edge)

    edit = GraphEdit(tables)
    build(edit)
    edited = edit._apply(machine)
    assert edited is not None
    ready = edited.changes.ready
    while ready:
        node_id = ready.pop()
        machine.start(node_id)
        ready += machine.end(node_id, end).ready
    ended = Counter(node.state for node in tables.nodes.values())
    expected = {end: width, NodeState.SKIPPED: (count - 1) * width} if end is NodeState.FAILED else {end: count * width}
    assert ended == expected
    assert tables.loaded <= 10 * (len(graph.nodes) + len(graph.edges))


@pytest.mark.parametrize("direction", [1, -1])
async def test_long_chain_does_not_recurse(direction: int, autojump_clock: MockClock) -> None:
    """The original's recursion limit is reached by a chain of 1,200 nodes that is built back to front."""
    names = [f"n{number}" for number in range(2_000)]
    graph = chain(*names)
    async with (
        open_tasks() as tasks,
        open_graph(tasks.constellation, Graph(graph.nodes[::direction], graph.edges[::direction])) as run,
    ):
        await tasks.fail("n0")
        result = await run.wait()
        assert tasks.started == ["n0"]
        run.retry("n0")
        run.edit(lambda edit: edit.add(Node("last", "x"), after=names[-1]))
        assert set(run.states.values()) == {NodeState.READY, NodeState.WAITING}
        run.cancel("n0")
        assert (await run.wait()).state is GraphState.FAILED
    assert list(result.results.values())[1 if direction == 1 else -2].state is NodeState.SKIPPED
