"""The state of a graph at one time, and its result. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

import attrs

from galaxy_trio._counted import counted
from galaxy_trio.errors import GraphError, GraphFailed
from galaxy_trio.events import shortened
from galaxy_trio.graph.model import Graph
from galaxy_trio.graph.state_machine import NodeState
from galaxy_trio.messages import JSON


class GraphState(StrEnum):
    """The state of a graph."""

    RUNNING = "running"
    COMPLETED = "completed"
    """All nodes have ended, and none failed, was lost or was cancelled. Nodes may have been skipped."""
    PARTIALLY_FAILED = "partially failed"
    """Some nodes completed, and others failed, were lost or were cancelled."""
    FAILED = "failed"
    """No node completed."""
    CANCELLED = "cancelled"
    """The graph was cancelled."""


@attrs.frozen
class NodeResult:
    """What is known of a node.

    Attributes:
        state: Its state.
        attempt: The number of attempts that were begun.
        result: The result of the last one; any JSON.
        error: The reason why that did not complete.
        task_id: The id of its task.
        device_id: The device that it was sent to.
        started: When it was sent.
        ended: When the node ended.
    """

    state: NodeState = NodeState.WAITING
    attempt: int = 0
    result: JSON = None
    error: str | None = None
    task_id: str | None = None
    device_id: str | None = None
    started: datetime | None = None
    ended: datetime | None = None


_UNTOUCHED = NodeResult()


def _read_only(items: Mapping[str, NodeResult]) -> Mapping[str, NodeResult]:
    return MappingProxyType(dict(items))


def _read_only_decisions(items: Mapping[str, bool]) -> Mapping[str, bool]:
    return MappingProxyType(dict(items))


@attrs.frozen
class GraphSnapshot:
    """A graph with the state of its nodes.

    Attributes:
        graph: The nodes and edges.
        version: The number of edits so far.
        nodes: The nodes' results by id; those that are missing wait.
        decisions: Whether edges hold, by their ids; those that are missing are not decided.
    """

    graph: Graph
    version: int = 0
    nodes: Mapping[str, NodeResult] = attrs.field(default=MappingProxyType({}), converter=_read_only)
    decisions: Mapping[str, bool] = attrs.field(default=MappingProxyType({}), converter=_read_only_decisions)

    def __attrs_post_init__(self) -> None:
        for what, given, known in (
            ("node", self.nodes, {node.id for node in self.graph.nodes}),
            ("edge", self.decisions, {edge.id for edge in self.graph.edges}),
        ):
            unknown = next((name for name in given if name not in known), None)
            if unknown is not None:
                raise GraphError(f"the snapshot has the {what} {unknown!r}, which its graph does not have")

    def node(self, node_id: str) -> NodeResult:
        """Return what is known of a node."""
        return self.nodes.get(node_id, _UNTOUCHED)


@attrs.frozen
class GraphResult:
    """The end of a graph.

    Attributes:
        state: Its state.
        results: The nodes' results by id.
    """

    state: GraphState
    results: Mapping[str, NodeResult]

    def unwrap(self) -> Mapping[str, JSON]:
        """Return the results of the nodes that completed.

        Raises:
            GraphFailed: The graph did not complete. The message names the first node that did not, and its error.
        """
        if self.state is not GraphState.COMPLETED:
            raise GraphFailed(self._why(), result=self)
        return {node_id: node.result for node_id, node in self.results.items() if node.state is NodeState.COMPLETED}

    def _why(self) -> str:
        bad = {
            node_id: node
            for node_id, node in self.results.items()
            if node.state not in (NodeState.COMPLETED, NodeState.SKIPPED)
        }
        if not bad:
            return f"the graph was {self.state}"
        first, node = next(iter(bad.items()))
        reason = f": {shortened(node.error)}" if node.error else ""
        more = f", and {counted(len(bad) - 1, 'more node')} did not complete" if len(bad) > 1 else ""
        return f"the graph is {self.state}: node {first!r} is {node.state}{reason}{more}"


def state_of(counts: Mapping[NodeState, int], *, cancelled: bool) -> GraphState:
    """Return the state of a graph, from the number of its nodes in each state."""
    if counts[NodeState.WAITING] or counts[NodeState.READY] or counts[NodeState.RUNNING]:
        return GraphState.RUNNING
    if cancelled:
        return GraphState.CANCELLED
    if not (counts[NodeState.FAILED] or counts[NodeState.LOST] or counts[NodeState.CANCELLED]):
        return GraphState.COMPLETED
    return GraphState.PARTIALLY_FAILED if counts[NodeState.COMPLETED] else GraphState.FAILED


@attrs.frozen
class GraphStatistics:
    """The current numbers of a graph.

    Attributes:
        state: The graph's state.
        version: The number of edits so far.
        nodes: The number of nodes in each state.
        edges: The number of edges.
        attempts: The number of attempts that were begun.
        planning: Whether the planner is thinking.
    """

    state: GraphState
    version: int
    nodes: Mapping[NodeState, int]
    edges: int
    attempts: int
    planning: bool
