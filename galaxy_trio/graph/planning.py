"""Calls a graph's planner with the ends of nodes, and applies the edits that it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio

from galaxy_trio.errors import GraphError, PlannerFailed
from galaxy_trio.graph.edit import GraphEdit
from galaxy_trio.graph.events import NodeEnded
from galaxy_trio.graph.snapshot import GraphSnapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from galaxy_trio.graph.memory_tables import LiveNode
    from galaxy_trio.graph.state_machine import NodeRow

Change: TypeAlias = Callable[[GraphEdit], None]
"""Receives a `GraphEdit`, and calls its methods."""

Planner: TypeAlias = Callable[[Sequence[NodeEnded], GraphSnapshot, GraphError | None], Awaitable[Change | None]]
"""Called with the ends since its last call, a snapshot, and the error if the edit that it returned for them was refused. It may return an
edit. While it thinks, the edges of the nodes that ended are not decided; everything else goes on."""

_TRIES: Final = 4
"""The number of edits for the same ends that a planner may return: a refused one goes back to it three times."""

_planned_graphs: ContextVar[tuple[object, ...]] = ContextVar("_planned_graphs", default=())


def is_planning(run: object) -> bool:
    """Whether the planner of a graph is calling, or the planner of another graph that it runs."""
    return run in _planned_graphs.get()


class PlannedGraph(Protocol):
    """What planning needs of a running graph."""

    def snapshot(self) -> GraphSnapshot:
        """Return the graph as it is now."""
        ...

    def edit(self, change: Change, *, version: int | None = None) -> int:
        """Change the graph."""
        ...

    def _planned(self, rows: Collection[LiveNode], failure: PlannerFailed | None) -> None:
        """Release the nodes whose ends the planner has thought about."""
        ...


class Planning:
    """Calls the planner, one call at a time.

    Args:
        run: The graph.
        planner: The planner.
        timeout: Seconds for the ends of one call, with all tries.
    """

    def __init__(self, run: PlannedGraph, planner: Planner, timeout: float) -> None:
        self._run = run
        self._planner = planner
        self._timeout = timeout
        # Nodes that ended, by id: those for the next call, and those of this one. They are held, so that they stay in the graph.
        self._waiting: dict[str, LiveNode] = {}
        self._thinking: dict[str, LiveNode] = {}
        self._scope = trio.CancelScope()
        self._arrived = trio.lowlevel.ParkingLot()

    @property
    def busy(self) -> bool:
        """Whether it is thinking, or will be."""
        return bool(self._waiting or self._thinking)

    def is_held(self, node: NodeRow) -> bool:
        """Whether the planner holds the end of a node."""
        return node.id in self._waiting or node.id in self._thinking

    def take(self, rows: Iterable[LiveNode]) -> None:
        """Take nodes that ended, and are held."""
        self._waiting |= {node.id: node for node in rows}
        self._arrived.unpark_all()

    def stop(self) -> list[LiveNode]:
        """Cancel the current call, and return the nodes for the next one: the graph was cancelled."""
        self._scope.cancel()
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())

    async def run(self) -> None:
        """Call the planner whenever nodes have ended, until cancelled. Its exceptions are raised."""
        _planned_graphs.set((*_planned_graphs.get(), self._run))
        while True:
            while not self._waiting:
                await self._arrived.park()
            self._thinking, self._waiting = self._waiting, {}
            failure = None
            with trio.CancelScope() as self._scope:
                failure = await self._plan([NodeEnded(row.id, row.state, row.error) for row in self._thinking.values()])
            thought_about, self._thinking = self._thinking, {}
            self._run._planned(thought_about.values(), failure)

    async def _plan(self, ends: Sequence[NodeEnded]) -> PlannerFailed | None:
        refusal: GraphError | None = None
        with trio.move_on_after(self._timeout):
            for _ in range(_TRIES):
                change = await self._planner(ends, self._run.snapshot(), refusal)
                # A planner that did not notice its end is too late.
                await trio.lowlevel.checkpoint_if_cancelled()
                if change is None:
                    return None
                try:
                    self._run.edit(change)
                except GraphError as error:
                    refusal = error
                else:
                    return None
            return PlannerFailed(f"the planner's edits were refused {_TRIES} times, the last one because {refusal}")
        return PlannerFailed(f"the planner did not return within {self._timeout:g} s")
