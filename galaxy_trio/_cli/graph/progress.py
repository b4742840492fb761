"""The progress of a running graph, as its events report it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from galaxy_trio._cli.graph.layers import layers_of
from galaxy_trio._cli.graph.stored_events import NodeRetriedWithin
from galaxy_trio._concurrency import wall_clock
from galaxy_trio.events import EventsLost
from galaxy_trio.graph import (
    GraphEdited,
    GraphSnapshot,
    Node,
    NodeEnded,
    NodeEvent,
    NodeReady,
    NodeRetried,
    NodeStarted,
    NodeState,
    NodeWaiting,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from galaxy_trio.graph import Edge, GraphEvent


STATES: Final = (
    NodeState.RUNNING,
    NodeState.FAILED,
    NodeState.LOST,
    NodeState.READY,
    NodeState.CANCELLED,
    NodeState.WAITING,
    NodeState.COMPLETED,
    NodeState.SKIPPED,
)
"""The states, in the order in which a person looks for them."""


def counts_in_words(counts: Mapping[NodeState, int]) -> str:
    """Return the number of nodes in each state: ``1 running, 2 waiting, 2 completed``."""
    return ", ".join(f"{counts[state]:,} {state.value}" for state in STATES if counts.get(state)) or "no nodes"


def trio_time(time: datetime | None) -> float:
    """Return a time of the past on trio's clock; None is now."""
    ago = 0.0 if time is None else (wall_clock.now() - time).total_seconds()
    return trio.current_time() - max(ago, 0.0)


class HasSnapshot(Protocol):
    """A graph."""

    def snapshot(self) -> GraphSnapshot:
        """Return the graph as it is now."""
        ...


@attrs.define(eq=False)
class NodeProgress:
    """A node, as far as it is.

    Attributes:
        node: The node.
        layer: The number of its layer, from 1.
        state: Its state.
        attempt: The number of its attempts.
        device_id: The device that it was sent to.
        error: Why it, or its last attempt, did not complete.
        next_try: When it is tried again, on trio's clock; None if it is not waiting for that.
        started: When its last attempt was sent, on trio's clock; None if it was not sent.
        took: Seconds of its last attempt, once that has ended.
    """

    node: Node
    layer: int
    state: NodeState = NodeState.WAITING
    attempt: int = 0
    device_id: str | None = None
    error: str | None = None
    next_try: float | None = None
    started: float | None = None
    took: float | None = None

    def seconds(self) -> float | None:
        """Return how long its last attempt took, or takes until now; None if none was sent."""
        if self.state is NodeState.RUNNING and self.started is not None:
            return trio.current_time() - self.started
        return self.took


class GraphProgress:
    """The nodes of a graph, and their states. Kept up to date by `apply`.

    Attributes:
        nodes: The nodes by id, in the order of their layers.
        edges: The edges by id.
        counts: The number of nodes in each state.
    """

    def __init__(self, snapshot: GraphSnapshot) -> None:
        self.nodes: Mapping[str, NodeProgress] = {}
        self.edges: Mapping[str | None, Edge] = {}
        self.counts: Counter[NodeState] = Counter()
        self.load(snapshot)

    def load(self, snapshot: GraphSnapshot) -> None:
        """Replace everything by what a snapshot says: at the beginning, and when events are missing."""
        before = self.nodes
        self.nodes = {
            node.id: self._loaded(snapshot, node, number, before.get(node.id))
            for number, layer in enumerate(layers_of(snapshot.graph), 1)
            for node in layer
        }
        self.edges = {edge.id: edge for edge in snapshot.graph.edges}
        self.counts = Counter(node.state for node in self.nodes.values())

    def _loaded(self, snapshot: GraphSnapshot, node: Node, layer: int, before: NodeProgress | None) -> NodeProgress:
        known = snapshot.node(node.id)
        progress = NodeProgress(node, layer, known.state, known.attempt, known.device_id, known.error)
        if known.started is not None and known.ended is not None:
            progress.took = (known.ended - known.started).total_seconds()
        if known.state is NodeState.RUNNING:
            began = before.started if before is not None and before.attempt == known.attempt else None
            progress.started = trio_time(known.started) if began is None else began
        return progress

    def apply(
        self, event: GraphEvent | GraphSnapshot | EventsLost, graph: HasSnapshot, at: float | None = None
    ) -> NodeProgress | None:
        """Follow an event.

        Args:
            event: The event.
            graph: Where to load everything from, if the event requires that.
            at: When it happened, on trio's clock; None for now.

        Returns:
            The node that it is about, if there is one.
        """
        when = trio.current_time() if at is None else at
        if isinstance(event, GraphSnapshot):
            self.load(event)
        elif isinstance(event, EventsLost | GraphEdited):
            self.load(graph.snapshot())
        # One that was removed may have events that are older than what was loaded.
        node = self.nodes.get(event.node_id) if isinstance(event, NodeEvent) else None
        if node is None:
            return None
        match event:
            case NodeReady():
                self._move(node, NodeState.READY)
            case NodeWaiting():
                self._move(node, NodeState.WAITING)
            case NodeStarted():
                self._move(node, NodeState.RUNNING)
                node.attempt, node.device_id = event.attempt, event.device_id
                node.started, node.took = when, None
            case NodeRetried():
                self._end(node, NodeState.READY, event.error, when)
                node.next_try = when + event.wait
            case NodeRetriedWithin():
                self._end(node, NodeState.READY, event.error, when)
            case NodeEnded():
                self._end(node, event.state, event.error, when)
            case _:
                # NodeSkipped.
                self._move(node, NodeState.SKIPPED)
        return node

    def _end(self, node: NodeProgress, state: NodeState, error: str | None, when: float) -> None:
        took = None
        if node.state is NodeState.RUNNING and node.started is not None:
            took = when - node.started
        node.took = took
        self._move(node, state)
        node.error = error

    def _move(self, node: NodeProgress, state: NodeState) -> None:
        self.counts[node.state] -= 1
        self.counts[state] += 1
        node.state, node.error, node.next_try = state, None, None
