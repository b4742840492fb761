"""A running graph, as its user sees it."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from galaxy_trio.errors import NotEditable, VersionConflict
from galaxy_trio.events import BACKLOG
from galaxy_trio.graph.edit import GraphEdit
from galaxy_trio.graph.model import evolve_unchecked
from galaxy_trio.graph.planning import is_planning
from galaxy_trio.graph.snapshot import GraphResult, GraphSnapshot, GraphState, GraphStatistics
from galaxy_trio.graph.state_machine import NodeState
from galaxy_trio.graph.steps import GraphSteps, closed_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from galaxy_trio.events import EventStream
    from galaxy_trio.graph.events import GraphEvent
    from galaxy_trio.graph.planning import Change


class GraphRun(GraphSteps):
    """A graph that runs on a constellation. Made by `open_graph`.

    All methods that change it take effect in one step, and start what can start. After the block they raise `trio.ClosedResourceError`.
    A function that the graph calls in such a step, as a condition, cannot change it: that raises `RuntimeError`.
    """

    @property
    def states(self) -> Mapping[str, NodeState]:
        """The nodes' states by id, as they are when they are read."""
        return self._tables.states

    @property
    def state(self) -> GraphState:
        """The graph's state."""
        return self._state

    @property
    def version(self) -> int:
        """The number of edits so far."""
        return self._version

    def snapshot(self) -> GraphSnapshot:
        """Return the graph as it is now, with the state of its nodes: for `write_graph`, or another `open_graph`."""
        edges = self._tables.edges.items()
        return evolve_unchecked(
            GraphSnapshot(self._given),
            graph=self._tables.graph(self._given),
            version=self._version,
            nodes=MappingProxyType(self._results()),
            decisions=MappingProxyType({edge_id: edge.holds for edge_id, edge in edges if edge.holds is not None}),
        )

    def statistics(self) -> GraphStatistics:
        """Return the current numbers."""
        return GraphStatistics(
            state=self.state,
            version=self._version,
            nodes=MappingProxyType(dict(self._machine.moved)),
            edges=len(self._tables.edges),
            attempts=self._attempts,
            planning=self._planning is not None and self._planning.busy,
        )

    @asynccontextmanager
    async def subscribe(self, backlog: int = BACKLOG) -> AsyncGenerator[EventStream[GraphEvent | GraphSnapshot]]:
        """Receive the graph's events for the length of the block: first a snapshot, then everything that happens after it.

        Args:
            backlog: Events that may wait for this subscriber. One that lags further loses the oldest, and receives `EventsLost`.
        """
        with self._events.subscribe(backlog, first=self.snapshot()) as stream:
            yield stream

    async def wait(self) -> GraphResult:
        """Wait until the graph has ended and its planner has nothing to think about. Cancelling is safe.

        Raises:
            PlannerFailed: The planner took too long, or its edit was refused several times. Raised once; the graph goes on.
            RuntimeError: The planner called it, which would wait for itself.
            trio.ClosedResourceError: The block has ended before the graph.
        """
        if is_planning(self):
            raise RuntimeError("a planner cannot wait for its own graph: return an edit, or None")
        await trio.lowlevel.checkpoint()
        while True:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._is_over:
                return GraphResult(self.state, MappingProxyType(self._results()))
            if self._step.closed:
                raise closed_error()
            await self._changed.wait()

    def edit(self, change: Change, *, version: int | None = None) -> int:
        """Change the graph: all of an edit, or nothing.

        Args:
            change: Receives a `GraphEdit`, and calls its methods. If it raises, nothing changes.
            version: Refuse the edit if the graph has another version.

        Returns:
            The graph's new version; the old one if the edit changes nothing.

        Raises:
            VersionConflict: The graph has another version. The error has it.
            GraphError: The edit is invalid: a cycle, a node that has started, too many nodes.
        """
        if version is not None and version != self._version:
            raise VersionConflict(
                f"the graph has version {self._version}, not {version}: look at it again", version=self._version
            )
        with self._step:
            edit = GraphEdit(self._tables)
            change(edit)
            edited = edit._apply(self._machine)
            if edited is not None:
                self._version += 1
                self._apply_edit(edited)
        return self._version

    def cancel(self, node_id: str | None = None) -> None:
        """Cancel a node, or the graph. What runs is stopped on its device, and ends a moment later.

        The planner of a cancelled graph is stopped as well, and its edit is dropped. A graph that has ended stays as it ended.

        Raises:
            NoSuchNode: There is no such node.
        """
        with self._step:
            if node_id is not None:
                self._cancel([self._tables.node(node_id)])
            elif not self._is_over:
                self._cancelled = True
                self._cancel(list(self._tables.nodes.values()))
                if self._planning is not None:
                    self._release(self._planning.stop())

    def retry(self, node_id: str) -> None:
        """Run a node again that failed, was lost or was cancelled. Nodes that were skipped through it wait again.

        Nothing is known any more of its last attempt; the attempts are counted on.

        Raises:
            NoSuchNode: There is no such node.
            NotEditable: It has another state, or one of its edges does not hold.
        """
        node = self._tables.node(node_id)
        if self._planning is not None and self._planning.is_held(node):
            raise NotEditable(
                f"the planner is thinking about the end of node {node_id!r}: retry it later", state=node.state
            )
        with self._step:
            changes = self._machine.retry(node_id)
            self._cancelled = False
            self._tables.keep_result(node, None, None)
            node.task_id = node.device_id = node.started = node.ended = node.not_before = None
            for repeated in (node_id, *changes.waiting):
                self._tables.node(repeated).repeated = True
            self._apply(changes)

    @contextmanager
    def hold(self, *node_ids: str) -> Generator[None]:
        """Let some nodes not start for the length of the block. The edges of those that end in it are decided at its end.

        All other nodes go on. Holds nest: a node is held until all blocks have ended. Do not `wait` in the block: the graph does not end
        while a node that could run is held.

        Raises:
            NoSuchNode: There is no such node.
        """
        with self._step:
            rows = self._machine.hold(node_ids)
            for row in rows:
                if row.state is NodeState.READY:
                    self._dispatcher.withdraw(row.id)
        try:
            yield
        finally:
            if not self._step.closed:
                with self._step:
                    self._release(rows)
