"""A subscriber that knows a graph from its first snapshot and its events alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph import (
    GraphEdited,
    NodeEnded,
    NodeReady,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    NodeState,
    NodeWaiting,
)

if TYPE_CHECKING:
    from galaxy_trio.graph import GraphEvent, GraphSnapshot


class Replay:
    """The nodes of a graph, by its events.

    Args:
        snapshot: The first event.
    """

    def __init__(self, snapshot: GraphSnapshot) -> None:
        self.version = snapshot.version
        self.states = {node.id: snapshot.node(node.id).state.value for node in snapshot.graph.nodes}
        self.attempts = {node.id: snapshot.node(node.id).attempt for node in snapshot.graph.nodes}

    def apply(self, event: GraphEvent) -> None:
        """Apply an event."""
        match event:
            case GraphEdited():
                self.version = event.version
                for node_id in event.removed:
                    del self.states[node_id], self.attempts[node_id]
                for node_id in event.added:
                    self.states[node_id], self.attempts[node_id] = NodeState.WAITING.value, 0
            case NodeReady() | NodeRetried():
                if self.states[event.node_id] == NodeState.RUNNING and isinstance(event, NodeReady):
                    # The attempt was not sent.
                    self.attempts[event.node_id] -= 1
                self.states[event.node_id] = NodeState.READY.value
            case NodeWaiting():
                self.states[event.node_id] = NodeState.WAITING.value
            case NodeSkipped():
                self.states[event.node_id] = NodeState.SKIPPED.value
            case NodeStarted():
                self.states[event.node_id] = NodeState.RUNNING.value
                self.attempts[event.node_id] = event.attempt
            case NodeEnded():
                self.states[event.node_id] = event.state.value
            case _:
                pass
