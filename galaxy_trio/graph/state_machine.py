"""The state machine of a task graph. Pure: no I/O, no clock, no task.

It knows when a node is ready, and when it is skipped. It sees the graph through `Tables`: a row for each node and edge, in memory or in a
database. A step loads only the rows that it may change.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import attrs

from galaxy_trio.errors import NotEditable
from galaxy_trio.graph.model import When

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class NodeState(StrEnum):
    """The state of a node."""

    WAITING = "waiting"
    """Not all of its edges are decided."""
    READY = "ready"
    """All of its edges hold. Nothing was sent: it may wait for a device, or for its next attempt."""
    RUNNING = "running"
    """It was sent, or is being sent."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The connection was lost after it was sent; whether it ran is unknown."""
    SKIPPED = "skipped"
    """One of its edges does not hold."""


UNSTARTED: Final = frozenset({NodeState.WAITING, NodeState.READY})
ENDED: Final = frozenset(NodeState) - UNSTARTED - {NodeState.RUNNING}
RETRYABLE: Final = frozenset({NodeState.FAILED, NodeState.LOST, NodeState.CANCELLED})
_HOLDING: Final[dict[NodeState, frozenset[When]]] = {
    NodeState.COMPLETED: frozenset({When.SUCCESS, When.CONDITION, When.END}),
    NodeState.FAILED: frozenset({When.FAILURE, When.END}),
    NodeState.LOST: frozenset({When.FAILURE, When.END}),
    NodeState.CANCELLED: frozenset({When.END}),
    NodeState.SKIPPED: frozenset({When.END}),
}
"""The edges that hold after each end of their source; those with a condition only if it is met."""


@attrs.define(eq=False)
class NodeRow:
    """What the machine keeps of a node.

    Attributes:
        id: The node's id.
        state: Its state.
        undecided: The number of its incoming edges that are not decided.
        attempt: The number of attempts that were begun.
        holds: The number of holds on it: it does not start, and its end decides no edges.
    """

    id: str
    state: NodeState = NodeState.WAITING
    undecided: int = 0
    attempt: int = 0
    holds: int = 0


@attrs.define(eq=False)
class EdgeRow:
    """What the machine keeps of an edge.

    Attributes:
        id: The edge's id.
        source: The id of the node that goes first.
        target: The id of the node that waits.
        when: The ends of the source with which the edge holds.
        holds: Whether it holds; None while that is not decided.
    """

    id: str
    source: str
    target: str
    when: When
    holds: bool | None = None


N_co = TypeVar("N_co", bound=NodeRow, covariant=True)
E_co = TypeVar("E_co", bound=EdgeRow, covariant=True)


class Tables(Protocol[N_co, E_co]):
    """The rows of a graph."""

    def node(self, node_id: str) -> N_co:
        """Return a node, which exists."""
        ...

    def incoming(self, node_id: str) -> Iterable[E_co]:
        """Return the edges to a node."""
        ...

    def outgoing(self, node_id: str) -> Iterable[E_co]:
        """Return the edges from a node."""
        ...


@attrs.define(init=False)
class Changes:
    """What a step of the machine changed, besides the node that it was asked to change.

    Attributes:
        ready: The nodes that became ready, in this order.
        waiting: The nodes that wait again: they were ready, were skipped, or are retried.
        skipped: The nodes that were skipped, each with the edge that does not hold.
    """

    ready: list[str]
    waiting: list[str]
    skipped: list[tuple[str, EdgeRow]]

    def __init__(self) -> None:
        self.ready, self.waiting, self.skipped = [], [], []


N = TypeVar("N", bound=NodeRow)
E = TypeVar("E", bound=EdgeRow)


class StateMachine(Generic[N, E]):
    """Applies what happens to a graph.

    Args:
        tables: The graph's rows.
        is_met: Decides whether the result of an edge's source, which completed, meets the edge's condition.
    """

    def __init__(self, tables: Tables[N, E], is_met: Callable[[E], bool]) -> None:
        self._tables = tables
        self._is_met = is_met
        self.moved: dict[NodeState, int] = dict.fromkeys(NodeState, 0)
        """How many more nodes are in each state than at the beginning."""

    def settle(self, node_ids: Iterable[str], changes: Changes) -> None:
        """Make those of some nodes ready that wait, and wait for no edge."""
        for node_id in node_ids:
            node = self._tables.node(node_id)
            if node.state is NodeState.WAITING and not node.undecided:
                self._move(node, NodeState.READY)
                changes.ready.append(node_id)

    def start(self, node_id: str) -> None:
        """Record that an attempt of a ready node begins."""
        node = self._tables.node(node_id)
        node.attempt += 1
        self._move(node, NodeState.RUNNING)

    def make_ready(self, node_id: str) -> None:
        """Record that a running node was not sent, or is to have another attempt."""
        self._move(self._tables.node(node_id), NodeState.READY)

    def end(self, node_id: str, state: NodeState) -> Changes:
        """Record the end of a node, and decide its outgoing edges unless the node is held."""
        return self.end_all([node_id], state)

    def end_all(self, node_ids: Iterable[str], state: NodeState) -> Changes:
        """Record the same end of several nodes, none of which starts another one of them."""
        nodes = [self._tables.node(node_id) for node_id in node_ids]
        for node in nodes:
            self._move(node, state)
        changes = Changes()
        for node in nodes:
            self.decide(node, changes)
        return changes

    def decide(self, node: N, changes: Changes) -> None:
        """Decide the undecided edges from a node, if it has ended and is not held, and from those that are skipped by this."""
        ended = [node]
        while ended:
            node = ended.pop()
            if node.state not in ENDED or node.holds:
                continue
            holding, condition = _HOLDING[node.state], When.CONDITION
            # Conditions first: an exception of one leaves the node undecided as a whole.
            decided = [
                (edge, edge.when in holding and (edge.when is not condition or self._is_met(edge)))
                for edge in self._tables.outgoing(node.id)
                if edge.holds is None
            ]
            for edge, holds in decided:
                edge.holds = holds
                target = self._tables.node(edge.target)
                target.undecided -= 1
                # Of many edges to a node only one can skip it, and only the last one can make it ready.
                if (holds and target.undecided) or target.state is not NodeState.WAITING:
                    continue
                if holds:
                    self._move(target, NodeState.READY)
                    changes.ready.append(target.id)
                else:
                    self._move(target, NodeState.SKIPPED)
                    changes.skipped.append((target.id, edge))
                    ended.append(target)

    def hold(self, node_ids: Iterable[str]) -> list[N]:
        """Let some nodes not start, and decide no edges when they end, until `release` of what is returned. Holds are counted."""
        nodes = [self._tables.node(node_id) for node_id in node_ids]
        for node in nodes:
            node.holds += 1
        return nodes

    def release(self, nodes: Iterable[N]) -> Changes:
        """Take back a hold, and decide the edges of those that ended. Nodes that were removed do no harm."""
        changes, released = Changes(), list(nodes)
        for node in released:
            node.holds -= 1
        for node in released:
            self.decide(node, changes)
        return changes

    def count_new(self, node_id: str) -> None:
        """Count a new node."""
        self.moved[self._tables.node(node_id).state] += 1

    def forget(self, node_id: str) -> None:
        """Count a node no more, which is removed next."""
        self.moved[self._tables.node(node_id).state] -= 1

    def add_edge(self, edge: EdgeRow) -> None:
        """Count a new edge to a node that has not started. Call `decide` for its source afterwards, and `settle` for its target."""
        target = self._tables.node(edge.target)
        target.undecided += 1

    def remove_edge(self, edge: EdgeRow) -> None:
        """Count an edge no more. Call `settle` for its target afterwards."""
        if edge.holds is None:
            self._tables.node(edge.target).undecided -= 1

    def await_edges(self, node_ids: Iterable[str], changes: Changes) -> None:
        """Let those of some nodes wait again that are ready, and have undecided edges."""
        for node_id in node_ids:
            node = self._tables.node(node_id)
            if node.state is NodeState.READY and node.undecided:
                self._move(node, NodeState.WAITING)
                changes.waiting.append(node_id)

    def retry(self, node_id: str) -> Changes:
        """Let a node that failed, was lost or was cancelled run again, and take back what its end decided.

        Nodes that were skipped through it wait again. Nodes that run or have run keep their states.

        Raises:
            NotEditable: The node has another state, or one of its own edges does not hold.
        """
        node = self._tables.node(node_id)
        if node.state not in RETRYABLE:
            raise NotEditable(
                f"node {node_id!r} is {node.state}: only a node that failed, was lost or was cancelled can be retried",
                state=node.state,
            )
        if any(edge.holds is False for edge in self._tables.incoming(node_id)):
            raise NotEditable(f"node {node_id!r} cannot run: one of its edges does not hold", state=node.state)
        changes = Changes()
        self._move(node, NodeState.WAITING)
        self._reopen(node, changes)
        self.settle([node_id], changes)
        if node.state is NodeState.WAITING:
            changes.waiting.append(node_id)
        return changes

    def _reopen(self, node: N, changes: Changes) -> None:
        """Take back the decisions of the edges from a node, and from all that were skipped through it."""
        # How many of its edges do not hold, for each skipped node that is met on the way: counted once, then kept up to date.
        refusals: dict[str, int] = {}
        reset = [node]
        while reset:
            for edge in self._tables.outgoing(reset.pop().id):
                target = self._tables.node(edge.target)
                # A node that runs does not ask its edges again. One that has ended does if it is retried.
                if edge.holds is None or target.state is NodeState.RUNNING:
                    continue
                if target.state is NodeState.SKIPPED and target.id not in refusals:
                    refusals[target.id] = sum(other.holds is False for other in self._tables.incoming(target.id))
                refused, edge.holds = edge.holds is False, None
                target.undecided += 1
                if target.state is not NodeState.SKIPPED:
                    self.await_edges([target.id], changes)
                elif refused:
                    refusals[target.id] -= 1
                    if not refusals[target.id]:
                        self._move(target, NodeState.WAITING)
                        changes.waiting.append(target.id)
                        reset.append(target)

    def _move(self, node: NodeRow, state: NodeState) -> None:
        self.moved[node.state] -= 1
        self.moved[state] += 1
        node.state = state
