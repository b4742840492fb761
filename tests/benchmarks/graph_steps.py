"""For how long each thing that is done to a large task graph holds the event loop, and how soon a node that is added to it starts."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
import trio.testing

from galaxy_trio.graph import Edge, Graph, Node, NodeState, open_graph

from .event_loop import Step, watch_steps
from .graph_constellation import WAIT, InstantConstellation
from .graph_shapes import layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from galaxy_trio.graph import Change, GraphEdit, GraphSnapshot, NodeEnded


class Start(NamedTuple):
    """The time from the call of `GraphRun.edit` to the start of the new node, in milliseconds: the best of some."""

    what: str
    wall: float
    cpu: float


def _graph(count: int, width: int) -> Graph:
    """Make a graph of a node that has no edges, and one that does not end, for which all others wait."""
    nodes, edges = layers(count, width)
    return Graph(
        [Node("done", "work"), Node("first", WAIT), *nodes],
        [*(Edge("first", node.id) for node in nodes[:width]), *edges],
    )


def _add(edit: GraphEdit, name: str) -> None:
    edit.add(Node(name, "work"))


def _add_after_an_end(edit: GraphEdit, name: str) -> None:
    edit.add(Node(name, "work"), after=["done"])


def _add_before_all(edit: GraphEdit, name: str) -> None:
    edit.add(Node(name, "work"), after=["done"])
    edit.connect(Edge(name, "node-0", id=name))


_EDITS: Final = {
    "a node without edges": _add,
    "a node after one that has ended": _add_after_an_end,
    "a node before all others, through which a cycle could lead": _add_before_all,
}


def _edit_of(edit: Callable[[GraphEdit, str], None], name: str) -> Change:
    return lambda graph: edit(graph, name)


async def _measure_edits(count: int, width: int, rounds: int) -> list[Start]:
    constellation = InstantConstellation()
    starts: list[Start] = []
    async with open_graph(constellation.as_constellation(), _graph(count, width)) as run:
        for what, edit in _EDITS.items():
            taken: list[tuple[float, float]] = []
            for number in range(rounds):
                await trio.testing.wait_all_tasks_blocked()
                gc.collect()
                name = f"{what} {number}"
                wall, cpu = time.perf_counter(), time.thread_time()
                run.edit(_edit_of(edit, name))
                await trio.testing.wait_all_tasks_blocked()
                if run.states[name] is not NodeState.COMPLETED:
                    raise RuntimeError(f"the new node is {run.states[name]}")
                taken.append((constellation.started[0] - wall, constellation.started[1] - cpu))
            starts.append(Start(what, *(1000 * min(times) for times in zip(*taken, strict=True))))
    return starts


async def _measure_steps(count: int, width: int) -> list[Step]:
    longest = await watch_steps()
    steps: list[Step] = []

    async def measure(what: str, action: Callable[[], object]) -> None:
        gc.collect()
        await trio.lowlevel.checkpoint()
        longest.take("")
        action()
        await trio.testing.wait_all_tasks_blocked()
        steps.append(longest.take(what))

    constellation = InstantConstellation().as_constellation()
    graph = _graph(count, width)
    gc.collect()
    await trio.lowlevel.checkpoint()
    longest.take("")
    async with open_graph(constellation, graph) as run:
        await trio.testing.wait_all_tasks_blocked()
        steps.append(longest.take("`open_graph`"))
        await measure("`snapshot`", run.snapshot)
        await measure("`states`", lambda: run.states["first"])
        await measure("an edit that adds a node", lambda: run.edit(lambda edit: edit.add(Node("a", "work"))))
        await measure("`snapshot` after it", run.snapshot)
        await measure("an edit that adds an edge", lambda: run.edit(lambda edit: edit.connect(Edge("a", "node-0"))))
        await measure("`cancel` of the graph", run.cancel)
    async with open_graph(constellation, graph) as run:
        await measure("the end of a node that skips all others", lambda: run.cancel("first"))
        await measure("`retry` of it, after which they wait again", lambda: run.retry("first"))
    async with open_graph(constellation, graph, planner=_think) as run:
        await measure("the call of a planner", lambda: run.edit(lambda edit: edit.add(Node("a", "work"))))
    return steps


async def _think(_ends: Sequence[NodeEnded], _snapshot: GraphSnapshot, _refusal: object) -> Change | None:
    return None


def measure_edits(count: int, width: int, rounds: int) -> list[Start]:
    """Edit a graph of which all nodes but two wait, each time so that the new node can start."""
    return trio.run(_measure_edits, count, width, rounds)


def measure_steps(count: int, width: int) -> list[Step]:
    """Do everything to a graph that holds the event loop for longer the larger it is, and return the longest step of each."""
    return trio.run(_measure_steps, count, width)
