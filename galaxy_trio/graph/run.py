"""A running graph."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from galaxy_trio._arguments import check_positive
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.errors import NotEditable, PlannerFailed, VersionConflict
from galaxy_trio.events import BACKLOG, EventFanOut, EventStream
from galaxy_trio.graph.dispatcher import Dispatcher
from galaxy_trio.graph.edit import GraphEdit
from galaxy_trio.graph.events import (
    GraphEdited,
    GraphEnded,
    GraphEvent,
    NodeEnded,
    NodeReady,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    NodeWaiting,
)
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables
from galaxy_trio.graph.model import Graph, conditions_met
from galaxy_trio.graph.node_requests import make_request as make_default_request
from galaxy_trio.graph.planning import Planning, is_planning
from galaxy_trio.graph.snapshot import GraphResult, GraphSnapshot, GraphState, GraphStatistics, NodeResult, state_of
from galaxy_trio.graph.state_machine import ENDED, UNSTARTED, Changes, NodeState, StateMachine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
    from random import Random

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.graph.model import Node
    from galaxy_trio.graph.planning import Change, Planner
    from galaxy_trio.messages import JSON

    MakeRequest = Callable[[Node, Mapping[str, NodeResult]], str]


class GraphRun:
    """A graph that runs on a constellation. Made by `open_graph`.

    All methods that change it take effect in one step, and start what can start.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        constellation: Constellation,
        snapshot: GraphSnapshot,
        max_concurrent: int | None,
        make_request: MakeRequest,
        random: Random | None,
    ) -> None:
        self._make_request = make_request
        self._tables = MemoryTables()
        self._machine = StateMachine[LiveNode, LiveEdge](self._tables, self._is_met)
        self._dispatcher = Dispatcher(nursery, constellation, self, max_concurrent, random)
        self._events: EventFanOut[GraphEvent | GraphSnapshot] = EventFanOut()
        self._given = snapshot.graph
        self._version = snapshot.version
        self._attempts = 0
        self._cancelled = False
        self._planning: Planning | None = None
        self._failure: PlannerFailed | None = None
        self._changed = trio.Event()
        self._was_over = False
        self._load(snapshot)

    def _load(self, snapshot: GraphSnapshot) -> None:
        for spec in snapshot.graph.nodes:
            self._tables.add_node(spec).load(snapshot.node(spec.id))
            self._machine.count_new(spec.id)
        for edge in map(self._tables.add_edge, snapshot.graph.edges):
            edge.holds = snapshot.decisions.get(edge.id)
            if edge.holds is None:
                self._machine.add_edge(edge)

    def _begin(self, planning: Planning | None) -> None:
        self._planning = planning
        changes = Changes()
        for node in list(self._tables.nodes.values()):
            self._machine.decide(node, changes)
        self._machine.settle(list(self._tables.nodes), changes)
        self._apply(changes)

    # What a user asks.

    @property
    def states(self) -> Mapping[str, NodeState]:
        """The nodes' states by id."""
        return MappingProxyType({node_id: node.state for node_id, node in self._tables.nodes.items()})

    @property
    def state(self) -> GraphState:
        """The graph's state."""
        return state_of(self._count, cancelled=self._cancelled)

    @property
    def version(self) -> int:
        """The number of edits so far."""
        return self._version

    def _count(self, state: NodeState) -> int:
        return self._machine.moved[state]

    def snapshot(self) -> GraphSnapshot:
        """Return the graph as it is now, with the state of its nodes: for `write_graph`, or another `open_graph`."""
        return GraphSnapshot(
            self._tables.graph(self._given),
            self._version,
            self._results(),
            {edge_id: edge.holds for edge_id, edge in self._tables.edges.items() if edge.holds is not None},
        )

    def _results(self) -> dict[str, NodeResult]:
        return {node_id: node.known() for node_id, node in self._tables.nodes.items()}

    def statistics(self) -> GraphStatistics:
        """Return the current numbers."""
        return GraphStatistics(
            state=self.state,
            version=self._version,
            nodes=MappingProxyType({state: self._count(state) for state in NodeState}),
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
            await self._changed.wait()

    @property
    def _is_over(self) -> bool:
        return self.state is not GraphState.RUNNING and not (self._planning is not None and self._planning.busy)

    # What a user changes.

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
        edit = GraphEdit(self._tables)
        change(edit)
        edited = edit._apply(self._machine)
        if edited is None:
            return self._version
        self._version += 1
        if edited.added:
            self._cancelled = False
        # A new node may have the id of one that was removed by the same edit.
        for node_id in (*edited.removed, *edited.added):
            self._dispatcher.withdraw(node_id)
        for node_id in edited.replaced:
            node = self._tables.node(node_id)
            self._dispatcher.withdraw(node_id)
            if node.state is NodeState.READY and node_id not in edited.changes.ready and not node.holds:
                self._dispatcher.add(node)
        self._events.publish(GraphEdited(self._version, edited.added, edited.replaced, edited.removed))
        self._apply(edited.changes)
        return self._version

    def cancel(self, node_id: str | None = None) -> None:
        """Cancel a node, or the graph. What runs is stopped on its device, and ends a moment later.

        Raises:
            NoSuchNode: There is no such node.
        """
        if node_id is not None:
            nodes = [self._tables.node(node_id)]
        else:
            self._cancelled = True
            nodes = list(self._tables.nodes.values())
        unstarted = [node.id for node in nodes if node.state in UNSTARTED]
        for node in nodes:
            if node.state not in ENDED:
                self._dispatcher.withdraw(node.id)
        self._end(unstarted, NodeState.CANCELLED, "it was cancelled")

    def retry(self, node_id: str) -> None:
        """Run a node again that failed, was lost or was cancelled. Nodes that were skipped through it wait again.

        Raises:
            NoSuchNode: There is no such node.
            NotEditable: It has another state, or one of its edges does not hold.
        """
        node = self._tables.node(node_id)
        if self._planning is not None and self._planning.is_held(node):
            raise NotEditable(
                f"the planner is thinking about the end of node {node_id!r}: retry it later", state=node.state
            )
        changes = self._machine.retry(node_id)
        self._cancelled = False
        node.ended = node.error = node.not_before = None
        self._apply(changes)

    @contextmanager
    def hold(self, *node_ids: str) -> Generator[None]:
        """Let some nodes not start for the length of the block. The edges of those that end in it are decided at its end.

        All other nodes go on. Holds nest: a node is held until all blocks have ended.

        Raises:
            NoSuchNode: There is no such node.
        """
        rows = self._machine.hold(node_ids)
        for row in rows:
            if row.state is NodeState.READY:
                self._dispatcher.withdraw(row.id)
        try:
            yield
        finally:
            self._release(rows)

    def _release(self, nodes: list[LiveNode]) -> None:
        changes = self._machine.release(nodes)
        for node in nodes:
            waits = node.state is NodeState.READY and node.id not in changes.ready
            if waits and not node.holds and self._tables.nodes.get(node.id) is node:
                self._dispatcher.add(node)
        self._apply(changes)

    # What happens to it: the dispatcher's calls.

    def _node(self, node_id: str) -> LiveNode:
        """Return a node."""
        return self._tables.node(node_id)

    def _text_of(self, node: LiveNode) -> str:
        """Return the text to send for a node."""
        before = {edge.source: self._tables.node(edge.source).known() for edge in self._tables.incoming(node.id)}
        return self._make_request(node.spec, MappingProxyType(before))

    def _started(self, node: LiveNode, task_id: str, device_id: str) -> None:
        """Record that an attempt is being sent."""
        self._machine.start(node.id)
        self._attempts += 1
        node.task_id, node.device_id, node.started = task_id, device_id, wall_clock.now()
        node.result = node.error = node.ended = None
        self._events.publish(NodeStarted(node.id, node.attempt, task_id, device_id))

    def _not_sent(self, node: LiveNode) -> None:
        """Record that an attempt was not sent after all."""
        node.attempt -= 1
        self._attempts -= 1
        self._machine.make_ready(node.id)
        self._events.publish(NodeReady(node.id))
        if node.holds:
            self._dispatcher.withdraw(node.id)

    def _attempt_ended(self, node: LiveNode, state: NodeState, result: JSON, error: str | None) -> None:
        """Record the end of an attempt: the node ends, or is ready for another one."""
        retries = state is NodeState.FAILED or (state is NodeState.LOST and node.spec.retry_lost)
        if node.state is NodeState.RUNNING and retries and node.attempt <= node.spec.retries and not self._cancelled:
            wait = self._dispatcher.wait_before(node)
            node.not_before, node.error = trio.current_time() + wait, error
            self._machine.make_ready(node.id)
            self._events.publish(NodeRetried(node.id, node.attempt, error, wait))
            if not node.holds:
                self._dispatcher.add(node)
            return
        node.result = result
        self._end([node.id], state, error)

    def _end(self, node_ids: list[str], state: NodeState, error: str | None) -> None:
        if not node_ids:
            return
        for node_id in node_ids:
            node = self._tables.node(node_id)
            node.ended, node.error = wall_clock.now(), error
        if self._planning is not None:
            self._planning.take(self._machine.hold(node_ids))
        changes = self._machine.end_all(node_ids, state)
        for node_id in node_ids:
            self._events.publish(NodeEnded(node_id, state, error))
        self._apply(changes)

    def _apply(self, changes: Changes) -> None:
        """Report what followed from a change, and start what can start."""
        for node_id in changes.waiting:
            self._dispatcher.withdraw(node_id)
            self._events.publish(NodeWaiting(node_id))
        for node_id, edge in changes.skipped:
            self._events.publish(NodeSkipped(node_id, edge.id))
        for node_id in changes.ready:
            node = self._tables.node(node_id)
            self._events.publish(NodeReady(node_id))
            if not node.holds:
                self._dispatcher.add(node)
        self._dispatcher.start_ready()
        self._check_over()

    def _check_over(self) -> None:
        """Wake those who wait, if the graph has ended."""
        over = self._is_over
        if over and not self._was_over:
            self._events.publish(GraphEnded(self.state))
        self._was_over = over
        if over or self._failure is not None:
            self._changed.set()
            self._changed = trio.Event()

    def _planned(self, rows: Iterable[LiveNode], failure: PlannerFailed | None) -> None:
        """Release the nodes whose ends the planner has thought about."""
        self._failure = failure or self._failure
        self._release(list(rows))

    def _is_met(self, edge: LiveEdge) -> bool:
        return conditions_met(edge.spec, self._tables.node(edge.source).result) if edge.met is None else edge.met


@asynccontextmanager
async def open_graph(
    constellation: Constellation,
    graph: Graph | GraphSnapshot,
    *,
    max_concurrent: int | None = None,
    make_request: Callable[[Node, Mapping[str, NodeResult]], str] = make_default_request,
    planner: Planner | None = None,
    planner_timeout: float = 600.0,
    random: Random | None = None,
) -> AsyncGenerator[GraphRun]:
    """Run a graph on a constellation for the length of the block.

    A node runs when all its edges hold, on its device or on the one that fits best. The failure of a node does not end the block.
    At the end of the block, and when it is cancelled, all running tasks are stopped on their devices: use `GraphRun.wait` to wait for
    the graph's end. An exception of the planner, of `make_request` or of a condition cancels the block and is raised.

    Args:
        constellation: Runs the nodes' tasks.
        graph: The graph. A snapshot continues where it was taken; nodes that ran then are lost.
        max_concurrent: The number of nodes that run at a time; None for no limit.
        make_request: Makes the text that is sent for a node from the node and the results of those before it.
        planner: Called with the ends of nodes; may return an edit.
        planner_timeout: Seconds that the planner may take for the ends of one call.
        random: The source of the jitter of waits.

    Raises:
        ConfigError: A limit is not above 0.
    """
    check_positive(max_concurrent=max_concurrent, planner_timeout=planner_timeout)
    snapshot = graph if isinstance(graph, GraphSnapshot) else GraphSnapshot(graph)
    with ExitStack() as stack:
        async with open_background() as nursery:
            run = GraphRun(nursery, constellation, snapshot, max_concurrent, make_request, random)
            stack.callback(run._events.end)
            planning = None if planner is None else Planning(run, planner, planner_timeout)
            if planning is not None:
                nursery.start_soon(planning.run)
            run._begin(planning)
            yield run
