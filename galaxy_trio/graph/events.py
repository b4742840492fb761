"""Events of a running graph."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from galaxy_trio._json_size import json_size
from galaxy_trio.events import MAX_INFORMATION, shortened_if_any
from galaxy_trio.graph.snapshot import GraphState
from galaxy_trio.graph.state_machine import NodeState


@attrs.frozen
class GraphEvent:
    """An event of a graph."""


@attrs.frozen
class NodeEvent(GraphEvent):
    """An event of a node."""

    node_id: str


@attrs.frozen
class NodeReady(NodeEvent):
    """All edges of the node hold, or its attempt turned out not to have been sent. It waits for a device."""


@attrs.frozen
class NodeWaiting(NodeEvent):
    """The node waits for an edge again: the graph was edited, or the node, or one before it, is retried."""


@attrs.frozen
class NodeStarted(NodeEvent):
    """An attempt of the node is being sent.

    Attributes:
        attempt: The number of the attempt, from 1.
        task_id: The id of its task.
        device_id: The device.
    """

    attempt: int
    task_id: str
    device_id: str


@attrs.frozen
class NodeRetried(NodeEvent):
    """An attempt failed, and another one follows.

    Attributes:
        attempt: The number of the attempt that failed.
        error: The reason.
        wait: Seconds until the node is sent to a device again.
    """

    attempt: int
    error: str | None = attrs.field(converter=shortened_if_any)
    wait: float


@attrs.frozen
class NodeEnded(NodeEvent):
    """The node ended.

    Attributes:
        state: Its state.
        error: The reason if it did not complete.
    """

    state: NodeState
    error: str | None = attrs.field(default=None, converter=shortened_if_any)


@attrs.frozen
class NodeSkipped(NodeEvent):
    """The node was skipped: it will not run, unless a node before it is retried.

    Attributes:
        edge_id: The edge that does not hold.
    """

    edge_id: str


@attrs.frozen
class GraphEdited(GraphEvent):
    """The graph was edited.

    Attributes:
        version: Its new version.
        added: The ids of the new nodes.
        replaced: The ids of the nodes that were replaced.
        removed: The ids of the nodes that were removed.
    """

    version: int
    added: Sequence[str]
    replaced: Sequence[str]
    removed: Sequence[str]


@attrs.frozen
class GraphEnded(GraphEvent):
    """All nodes have ended. An edit or a retry can reopen the graph.

    Attributes:
        state: The graph's state.
    """

    state: GraphState


def event_size(event: object) -> int:
    """Count the bytes of memory of an event that may be large, to the limit of a subscriber's backlog."""
    if not isinstance(event, GraphEdited):
        return 0
    return json_size((*event.added, *event.replaced, *event.removed), MAX_INFORMATION)
