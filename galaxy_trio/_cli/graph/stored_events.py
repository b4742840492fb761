"""The events of a graph in the daemon: what the daemon's own events, and its snapshots, mean for the graph. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import attrs

from galaxy_trio._cli.times import parse_time
from galaxy_trio.events import shortened_if_any
from galaxy_trio.graph import (
    GraphEdited,
    GraphEnded,
    GraphEvent,
    GraphState,
    NodeEnded,
    NodeEvent,
    NodeReady,
    NodeResult,
    NodeSkipped,
    NodeStarted,
    NodeState,
    NodeWaiting,
    When,
)
from galaxy_trio.graph.backoff import longest_wait
from galaxy_trio.graph.state_machine import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from galaxy_trio.graph import Edge, GraphSnapshot
    from galaxy_trio.messages import JSON


@attrs.frozen
class NodeRetriedWithin(NodeEvent):
    """An attempt failed, and the daemon makes another one.

    Attributes:
        attempt: The number of the attempt that failed.
        error: The reason.
        within: The longest time in seconds until the node is sent to a device again.
    """

    attempt: int
    error: str | None = attrs.field(converter=shortened_if_any)
    within: float


@attrs.frozen
class Dated:
    """An event of a graph.

    Attributes:
        event: The event.
        time: When it happened, by the daemon's clock; None if that is not known.
    """

    event: GraphEvent
    time: datetime | None = None


class StoredNodes:
    """The nodes of a graph in the daemon. Events and snapshots may overlap: each change is reported once.

    Args:
        snapshot: The graph.

    Attributes:
        snapshot: The graph as it was last loaded.
    """

    def __init__(self, snapshot: GraphSnapshot) -> None:
        self.snapshot: GraphSnapshot = snapshot
        self._results: dict[str, NodeResult] = {}
        self._queued: dict[str, str] = {}
        # Why, and when, the last tasks of nodes ended that have not ended yet.
        self._ends: dict[str, tuple[str | None, datetime | None]] = {}
        self._load(snapshot)

    def _load(self, snapshot: GraphSnapshot) -> None:
        self.snapshot = snapshot
        self._results = {node.id: snapshot.node(node.id) for node in snapshot.graph.nodes}
        self._nodes = {node.id: node for node in snapshot.graph.nodes}
        self._queued = {
            node_id: result.task_id
            for node_id, result in self._results.items()
            if result.task_id is not None and result.started is None
        }
        self._ends = {}
        self._incoming: dict[str, list[Edge]] = {}
        for edge in snapshot.graph.edges:
            self._incoming.setdefault(edge.target, []).append(edge)

    def load(self, snapshot: GraphSnapshot) -> Iterator[Dated]:
        """Replace everything by what a snapshot says, and yield what has changed."""
        before, nodes, version = self._results, self._nodes, self.snapshot.version
        self._load(snapshot)
        if snapshot.version != version:
            yield Dated(
                GraphEdited(
                    snapshot.version,
                    [node_id for node_id in self._nodes if node_id not in nodes],
                    [node_id for node_id, node in self._nodes.items() if nodes.get(node_id, node) != node],
                    [node_id for node_id in nodes if node_id not in self._nodes],
                )
            )
        for node_id, result in self._results.items():
            # A new node may have started already.
            known = before.get(node_id, NodeResult())
            if (known.state, known.task_id) != (result.state, result.task_id):
                yield from self._changed(node_id, known, result)

    def _changed(self, node_id: str, before: NodeResult, now: NodeResult) -> Iterator[Dated]:
        has_started = now.started is not None and now.device_id is not None and now.task_id is not None
        is_seen = before.task_id == now.task_id and before.started is not None
        if has_started and not is_seen and (now.state is NodeState.RUNNING or now.state in ENDED):
            yield Dated(NodeStarted(node_id, now.attempt, str(now.task_id), str(now.device_id)), now.started)
        if now.state is not before.state and now.state is not NodeState.RUNNING:
            yield Dated(self._arrived(node_id, now.state, now.error), now.ended)

    def follow_task(self, task: Mapping[str, JSON]) -> Iterator[Dated]:
        """Yield what an event of one of the graph's tasks means."""
        node_id, task_id, state = str(task.get("node")), str(task.get("id")), task.get("state")
        known = self._results.get(node_id)
        if known is None:
            return
        if state == "queued":
            if known.state is not NodeState.RUNNING:
                self._queued[node_id] = task_id
            elif known.task_id == task_id:
                # Its device had left, and nothing was sent.
                self._queued[node_id] = task_id
                yield self._moved(node_id, NodeState.READY)
        elif state == "running":
            if known.state is NodeState.READY and self._queued.get(node_id) == task_id:
                yield self._started(node_id, known, task)
        elif task_id == self._queued.get(node_id) or task_id == known.task_id:
            yield from self._ended(node_id, known, task)

    def _started(self, node_id: str, known: NodeResult, task: Mapping[str, JSON]) -> Dated:
        task_id, device, time = str(task["id"]), str(task.get("device")), parse_time(task.get("started"))
        # The same one starts again if nothing was sent.
        attempt = known.attempt + (known.task_id != task_id or known.started is None)
        self._results[node_id] = NodeResult(
            NodeState.RUNNING, attempt, task_id=task_id, device_id=device, started=time or datetime.now(UTC)
        )
        return Dated(NodeStarted(node_id, attempt, task_id, device), time)

    def _ended(self, node_id: str, known: NodeResult, task: Mapping[str, JSON]) -> Iterator[Dated]:
        """A node whose task has ended has ended when the graph's event says so, unless it is retried."""
        error, time = task.get("error"), parse_time(task.get("ended"))
        reason = shortened_if_any(None if error is None else str(error))
        self._ends[node_id] = reason, time
        node = self._nodes[node_id]
        is_repeated = task.get("state") == "failed" or (task.get("state") == "lost" and node.retry_lost)
        if known.state is NodeState.RUNNING and is_repeated and known.attempt <= node.retries:
            self._results[node_id] = attrs.evolve(known, state=NodeState.READY)
            event = NodeRetriedWithin(node_id, known.attempt, reason, longest_wait(node.backoff, known.attempt))
            yield Dated(event, time)

    def follow_graph(self, graph: Mapping[str, JSON]) -> Iterator[Dated] | None:
        """Yield what an event of the graph means. None means that the graph must be loaded."""
        changed = graph.get("changed")
        if (
            graph.get("version") != self.snapshot.version
            or graph.get("more_changed")
            or not isinstance(changed, dict)
            or not changed.keys() <= self._results.keys()
        ):
            return None
        return self._follow(cast("Mapping[str, str]", changed), graph)

    def _follow(self, changed: Mapping[str, str], graph: Mapping[str, JSON]) -> Iterator[Dated]:
        if NodeState.RUNNING in changed.values():
            raise ValueError("a node is running, which only the event of its task says")
        moved = {
            node_id: NodeState(state) for node_id, state in changed.items() if state != self._results[node_id].state
        }
        # All first: a node is skipped because of one that may come after it.
        dated = [self._moved(node_id, state) for node_id, state in moved.items() if state is not NodeState.SKIPPED]
        dated += [self._moved(node_id, state) for node_id, state in moved.items() if state is NodeState.SKIPPED]
        yield from dated
        if graph.get("state") != GraphState.RUNNING:
            yield Dated(GraphEnded(GraphState(str(graph.get("state")))))

    def _moved(self, node_id: str, state: NodeState) -> Dated:
        error, time = self._ends.pop(node_id, (None, None))
        self._results[node_id] = attrs.evolve(self._results[node_id], state=state, error=error)
        return Dated(self._arrived(node_id, state, error), time)

    def _arrived(self, node_id: str, state: NodeState, error: str | None) -> NodeEvent:
        match state:
            case NodeState.READY:
                return NodeReady(node_id)
            case NodeState.WAITING:
                return NodeWaiting(node_id)
            case NodeState.SKIPPED:
                return NodeSkipped(node_id, self._reason_to_skip(node_id))
            case _:
                return NodeEnded(node_id, state, error)

    def _reason_to_skip(self, node_id: str) -> str:
        """The id of an edge that does not hold."""
        edges = self._incoming.get(node_id, [])
        for edge in edges:
            if self.snapshot.decisions.get(str(edge.id)) is False or self._cannot_hold(edge):
                return str(edge.id)
        # A condition that is not met: only the daemon knows.
        conditional = (edge for edge in edges if self._results[edge.source].state is NodeState.COMPLETED)
        return next((str(edge.id) for edge in conditional if edge.when is When.CONDITION), "")

    def _cannot_hold(self, edge: Edge) -> bool:
        state = self._results[edge.source].state
        if state not in ENDED or edge.when is When.END:
            return False
        is_success = edge.when in (When.SUCCESS, When.CONDITION)
        return is_success != (state is NodeState.COMPLETED) or state in (NodeState.CANCELLED, NodeState.SKIPPED)
