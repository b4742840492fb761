"""How long a task graph takes beyond its longest path, and how long nodes wait that have nothing to wait for. Each task takes 1 s."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

from galaxy_trio.graph import Edge, Graph, GraphState, Node, NodeEnded, NodeStarted, open_graph

from .graph_constellation import open_devices
from .graph_shapes import plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.graph import Change, GraphRun, Planner

_DEVICES: Final = 5
_STEPS: Final = 30
_LEVELS: Final = 10
_ELSEWHERE: Final = "device-1"


async def _makespan(seed: int) -> float:
    """Return the time from `open_graph` to a plan's end, divided by that of its longest path."""
    graph = Graph(*plan(seed))
    async with open_devices(_DEVICES, seconds=1) as constellation:
        began = trio.current_time()
        async with open_graph(constellation, graph) as run:
            state = (await run.wait()).state
        if state is not GraphState.COMPLETED:
            raise RuntimeError(f"the graph is {state}")
        return (trio.current_time() - began) / _LEVELS


def measure_makespan(clock: str, plans: int) -> float:
    """Run plans in the shape of NebulaBench's, and return the longest makespan, as a multiple of the longest path's.

    Args:
        clock: ``mocked`` for a clock that jumps, or ``real``.
        plans: The number of plans.
    """
    return max(trio.run(_makespan, seed, clock=_mock_clock() if clock == "mocked" else None) for seed in range(plans))


def _mock_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def _edit(run: GraphRun) -> None:
    for number in range(200):
        run.edit(_adding(Node(f"new-{number}", "work", device=_ELSEWHERE)))
        await trio.sleep(0.1)


def _adding(node: Node) -> Change:
    return lambda edit: edit.add(node, after=["other-2"])


async def _hold(run: GraphRun) -> None:
    with run.hold("other-1", "other-2"):
        await trio.sleep(20)


async def _do_nothing(_: GraphRun) -> None:
    return


async def _think(_ends: Sequence[NodeEnded], _snapshot: object, _refusal: object) -> Change | None:
    await trio.sleep(20)
    return None


_Disturbance = tuple[Callable[["GraphRun"], Awaitable[None]], "Planner | None", bool]
_DISTURBANCES: Final[dict[str, _Disturbance]] = {
    "edit": (_edit, None, True),
    "hold": (_hold, None, True),
    "planner": (_do_nothing, _think, False),
}


async def _longest_delay(disturbance: str) -> float:
    disturb, planner, chained = _DISTURBANCES[disturbance]
    # With a planner, the steps are nodes that follow each other only because they need the same device: what follows an end waits for it.
    steps = [Node(f"step-{number}", "work", device="device-0") for number in range(_STEPS)]
    edges = [Edge(before.id, after.id) for before, after in itertools.pairwise(steps)] if chained else []
    others = [Node(f"other-{number}", "work", device=_ELSEWHERE) for number in range(3)]
    graph = Graph([*steps, *others], [*edges, Edge("other-0", "other-1"), Edge("other-1", "other-2")])
    ended = 0.0
    delays: list[float] = []
    async with (
        open_devices(_DEVICES, seconds=1) as constellation,
        open_graph(constellation, graph, planner=planner) as run,
    ):
        async with run.subscribe() as events, trio.open_nursery() as nursery:
            nursery.start_soon(disturb, run)
            async for event in events:
                if isinstance(event, NodeStarted) and event.node_id.startswith("step-"):
                    delays.append(trio.current_time() - ended if ended else 0.0)
                elif isinstance(event, NodeEnded) and event.node_id.startswith("step-"):
                    ended = trio.current_time()
                    if len(delays) == _STEPS:
                        break
            nursery.cancel_scope.cancel()
    return max(delays)


def measure_stall(disturbance: str) -> float:
    """Return the longest time between a step's end and the start of the next one, in a branch apart from the one that is disturbed.

    The clock jumps: the time is what the graph waits, without the time of the processor.

    Args:
        disturbance: ``edit``, ``hold`` or ``planner``.
    """
    return trio.run(_longest_delay, disturbance, clock=_mock_clock())
