"""The steps of a running graph: each changes it, reports what follows, and starts what can start."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.errors import GraphError, GraphTooLarge, PlannerFailed
from galaxy_trio.events import EventFanOut
from galaxy_trio.graph.dispatcher import Dispatcher
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
    event_size,
)
from galaxy_trio.graph.memory_tables import MAX_RESULTS, LiveEdge, LiveNode, MemoryTables
from galaxy_trio.graph.model import conditions_met
from galaxy_trio.graph.snapshot import GraphSnapshot, GraphState, NodeResult, state_of
from galaxy_trio.graph.state_machine import ENDED, UNSTARTED, Changes, NodeState, StateMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
    from random import Random

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.graph.edit import Edited
    from galaxy_trio.graph.events import NodeEvent
    from galaxy_trio.graph.model import Edge, Node
    from galaxy_trio.graph.planning import Planning
    from galaxy_trio.messages import JSON

    MakeRequest = Callable[[Node, Mapping[str, NodeResult]], str]

_ROWS_PER_SLICE: Final = 1_000
"""The number of nodes or edges that are loaded before other tasks have a turn."""
_RESULTS: Final = f"the results of a graph take at most {MAX_RESULTS:,} bytes of memory together"


class GraphSteps:
    """A running graph, as its dispatcher and its planning see it.

    Each step is synchronous, so that nothing comes between what it changes and what follows from that.
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
        self._nursery = nursery
        self._make_request = make_request
        self._tables = MemoryTables()
        self._machine = StateMachine[LiveNode, LiveEdge](self._tables, self._is_met)
        self._dispatcher = Dispatcher(nursery, constellation, self, max_concurrent, random)
        self._events: EventFanOut[GraphEvent | GraphSnapshot] = EventFanOut(size_of=event_size)
        # Its name and metadata: the tables have the rest.
        self._given = attrs.evolve(snapshot.graph, nodes=(), edges=())
        self._version: int = snapshot.version
        self._attempts = 0
        self._cancelled = False
        self._planning: Planning | None = None
        self._failure: PlannerFailed | None = None
        self._changed = trio.Event()
        self._was_over = False
        self._step: Final = _Step()
        """Change the graph in the block, which calls no function that changes it as well."""

    def _load(self, snapshot: GraphSnapshot) -> Generator[None]:
        """Fill the tables, in slices between which other tasks have a turn. Nothing starts before the last one."""
        nodes, edges = snapshot.graph.nodes, snapshot.graph._named_edges
        self._tables.size = snapshot.graph._size
        for start in range(0, len(nodes), _ROWS_PER_SLICE):
            self._load_nodes(nodes[start : start + _ROWS_PER_SLICE], snapshot)
            yield
        for start in range(0, len(edges), _ROWS_PER_SLICE):
            self._load_edges(edges[start : start + _ROWS_PER_SLICE], snapshot)
            yield

    def _load_nodes(self, specs: Sequence[Node], snapshot: GraphSnapshot) -> None:
        for spec in specs:
            node, known = self._tables.add_node(spec), snapshot.node(spec.id)
            node.load(known)
            if not self._tables.keep_result(node, known.result, known.error):
                raise GraphTooLarge(f"the snapshot's results are too large: {_RESULTS}")
            self._machine.count_new(spec.id)

    def _load_edges(self, specs: Sequence[Edge], snapshot: GraphSnapshot) -> None:
        decisions, add_edge = snapshot.decisions, self._machine.add_edge
        for edge in self._tables.add_edges(specs):
            edge.holds = decisions.get(edge.id) if decisions else None
            if edge.holds is None:
                add_edge(edge)
                continue
            source = self._tables.node(edge.source)
            source.repeated = source.state not in ENDED
            if not edge.holds and self._tables.node(edge.target).state in UNSTARTED:
                raise GraphError(
                    f"the snapshot's node {edge.target!r} waits, although its edge {edge.id!r} does not hold"
                )

    def _begin(self, planning: Planning | None) -> None:
        self._planning = planning
        with self._step:
            changes = Changes()
            for node in list(self._tables.nodes.values()):
                self._machine.decide(node, changes)
            self._machine.settle(list(self._tables.nodes), changes)
            self._apply(changes)

    def _close(self) -> None:
        """End the events, and raise in calls that wait: the block has ended."""
        self._step.closed = True
        self._events.end()
        self._changed.set()

    def _results(self) -> dict[str, NodeResult]:
        return {node_id: node.known() for node_id, node in self._tables.nodes.items()}

    @property
    def _state(self) -> GraphState:
        return state_of(self._machine.moved, cancelled=self._cancelled)

    @property
    def _is_over(self) -> bool:
        return self._state is not GraphState.RUNNING and not (self._planning is not None and self._planning.busy)

    def _apply_edit(self, edited: Edited) -> None:
        if edited.added:
            self._cancelled = False
        # A new node may have the id of one that was removed by the same edit.
        for node_id in (*edited.removed, *edited.added, *edited.outdated):
            self._dispatcher.withdraw(node_id)
        self._add_unheld(map(self._tables.node, edited.outdated))
        self._events.publish(GraphEdited(self._version, edited.added, edited.replaced, edited.removed))
        self._apply(edited.changes)

    def _cancel(self, nodes: list[LiveNode]) -> None:
        unstarted = [node.id for node in nodes if node.state in UNSTARTED]
        for node in nodes:
            if node.state not in ENDED:
                self._dispatcher.withdraw(node.id)
        self._end(unstarted, NodeState.CANCELLED, "it was cancelled")

    def _release(self, nodes: Collection[LiveNode]) -> None:
        try:
            changes = self._machine.release(nodes)
        except Exception as error:  # noqa: BLE001  # a condition raised it: it ends the graph's block
            self._nursery.start_soon(_raise, error)
            return
        self._add_unheld(node for node in nodes if self._tables.nodes.get(node.id) is node)
        self._apply(changes)

    def _add_unheld(self, nodes: Iterable[LiveNode]) -> None:
        for node in nodes:
            if node.state is NodeState.READY and not node.holds:
                self._dispatcher.add(node)

    def _report(self, event: NodeEvent) -> None:
        """Publish an event of a node, and let nodes that are ready see what has changed of it.

        Only a node that is repeated has such nodes after it: the edges from all others are not decided before they end.
        """
        self._events.publish(event)
        if self._tables.node(event.node_id).repeated:
            targets = dict.fromkeys(edge.target for edge in self._tables.outgoing(event.node_id))
            ready = [target for target in map(self._tables.node, targets) if target.state is NodeState.READY]
            for target in ready:
                self._dispatcher.withdraw(target.id)
            self._add_unheld(ready)

    def _node(self, node_id: str) -> LiveNode:
        """Return a node."""
        return self._tables.node(node_id)

    def _text_of(self, node: LiveNode) -> str:
        """Return the text to send for a node."""
        nodes = self._tables.nodes
        before = {edge.source: nodes[edge.source].known() for edge in self._tables.incoming(node.id)}
        return self._make_request(node.spec, MappingProxyType(before))

    def _started(self, node: LiveNode, task_id: str, device_id: str) -> None:
        """Record that an attempt is being sent."""
        self._machine.start(node.id)
        self._attempts += 1
        node.task_id, node.device_id, node.started = task_id, device_id, wall_clock.now()
        node.ended = None
        self._tables.keep_result(node, None, None)
        self._report(NodeStarted(node.id, node.attempt, task_id, device_id))

    def _not_sent(self, node: LiveNode) -> None:
        """Record that an attempt was not sent after all."""
        node.attempt -= 1
        self._attempts -= 1
        node.task_id = node.device_id = node.started = None
        self._machine.make_ready(node.id)
        self._report(NodeReady(node.id))
        if node.holds:
            self._dispatcher.withdraw(node.id)

    def _attempt_ended(self, node: LiveNode, state: NodeState, result: JSON, error: str | None) -> None:
        """Record the end of an attempt: the node ends, or is ready for another one."""
        with self._step:
            retries = state is NodeState.FAILED or (state is NodeState.LOST and node.spec.retry_lost)
            if node.state is NodeState.RUNNING and retries and node.attempt <= node.spec.retries:
                self._retry_later(node, result, error)
            elif self._tables.keep_result(node, result, error):
                self._end([node.id], state, error)
            else:
                self._end([node.id], NodeState.FAILED, f"its result was dropped: {_RESULTS}")

    def _retry_later(self, node: LiveNode, result: JSON, error: str | None) -> None:
        wait = self._dispatcher.wait_before(node)
        node.not_before = trio.current_time() + wait
        if not self._tables.keep_result(node, result, error):
            self._tables.keep_result(node, None, error)
        self._machine.make_ready(node.id)
        self._report(NodeRetried(node.id, node.attempt, error, wait))
        self._add_unheld([node])

    def _end(self, node_ids: list[str], state: NodeState, error: str | None) -> None:
        if not node_ids:
            return
        now = wall_clock.now()
        for node_id in node_ids:
            node = self._tables.node(node_id)
            node.ended, node.error = now, error
        # The planner of a graph that was cancelled is called no more.
        if self._planning is not None and not self._cancelled:
            self._planning.take(self._machine.hold(node_ids))
        changes = self._machine.end_all(node_ids, state)
        for node_id in node_ids:
            self._report(NodeEnded(node_id, state, error))
        self._apply(changes)

    def _apply(self, changes: Changes) -> None:
        """Report what followed from a change, and start what can start."""
        for node_id in changes.waiting:
            self._dispatcher.withdraw(node_id)
            self._tables.node(node_id).ended = None
            self._report(NodeWaiting(node_id))
        for node_id, edge in changes.skipped:
            self._tables.node(node_id).ended = wall_clock.now()
            self._report(NodeSkipped(node_id, edge.id))
        for node_id in changes.ready:
            self._report(NodeReady(node_id))
        self._add_unheld(map(self._tables.node, changes.ready))
        self._dispatcher.start_ready()
        self._check_over()

    def _check_over(self) -> None:
        """Wake those who wait, if the graph has ended."""
        over = self._is_over
        if over and not self._was_over:
            self._events.publish(GraphEnded(self._state))
        self._was_over = over
        if over or self._failure is not None:
            self._changed.set()
            self._changed = trio.Event()

    def _planned(self, rows: Collection[LiveNode], failure: PlannerFailed | None) -> None:
        """Release the nodes whose ends the planner has thought about."""
        self._failure = failure or self._failure
        with self._step:
            self._release(rows)

    def _is_met(self, edge: LiveEdge) -> bool:
        return conditions_met(edge.spec, self._tables.node(edge.source).result) if edge.met is None else edge.met


class _Step:
    """The block of a step. Steps are too short for a generator."""

    def __init__(self) -> None:
        self._taken = False
        self.closed = False

    def __enter__(self) -> None:
        if self.closed:
            raise closed_error()
        if self._taken:
            raise RuntimeError(
                "a function that is called while the graph changes cannot change it: collect the changes, and make them afterwards"
            )
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


def closed_error() -> Exception:
    """Return the error of calls after the block."""
    return trio.ClosedResourceError("the graph was closed: the block of open_graph has ended")


async def _raise(error: Exception) -> None:
    raise error
