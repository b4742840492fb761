"""A naive model of a running graph: what is known of each node, and what an edit makes of it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs

from galaxy_trio.graph import Condition, Edge, GraphState, Node, NodeState, When
from galaxy_trio.messages import JSON
from tests.graph.support.naive_graph import NaiveEdge, NaiveGraph, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from galaxy_trio.graph import GraphEdit, GraphSnapshot

    Decisions: TypeAlias = Counter[tuple[str, str, When, str, bool]]

UNSTARTED: Final = (NodeState.WAITING, NodeState.READY)
_serials = itertools.count()


@attrs.define(eq=False)
class ModelNode:
    """What the model knows of a node.

    Attributes:
        serial: Differs for each node that had this id.
        not_before: The time before which its next attempt does not start.
        sent_as: The ids of the tasks of its attempts that may have been sent.
        cancelling: Whether it was cancelled while it ran.
    """

    spec: Node
    serial: int = attrs.field(factory=lambda: next(_serials))
    attempt: int = 0
    not_before: float = 0.0
    task_id: str | None = None
    sent_as: set[str] = attrs.Factory(set[str])
    started: float = 0.0
    result: JSON = None
    error: str | None = None
    cancelling: bool = False


@attrs.frozen
class Change:
    """One change of an edit: a method of `GraphEdit` and its arguments."""

    method: Literal["add", "replace", "remove", "connect", "disconnect"]
    node: Node | None = None
    edge: Edge | None = None
    after: tuple[str, ...] = ()

    def __str__(self) -> str:
        after = f" after {', '.join(self.after)}" if self.after else ""
        return f"{self.method} {self.node.request + after if self.node else self.edge}"

    def apply(self, edit: GraphEdit) -> None:
        """Make the change with the package."""
        if self.node is not None:
            match self.method:
                case "add":
                    edit.add(self.node, self.after)
                case "replace":
                    edit.replace(self.node)
                case _:
                    edit.remove(self.node.id)
        elif self.edge is not None and self.method == "connect":
            edit.connect(self.edge)
        elif self.edge is not None:
            edit.disconnect(self.edge.source, self.edge.target)


@attrs.define
class Model:
    """The model of a graph.

    Attributes:
        states: The states and decisions.
        nodes: What is known of the nodes.
        edges: The edges as they were given, by the keys of `states.edges`.
        cancelled: Whether the graph was cancelled.
    """

    states: NaiveGraph = attrs.Factory(NaiveGraph)
    nodes: dict[str, ModelNode] = attrs.Factory(dict[str, ModelNode])
    edges: dict[str, Edge] = attrs.Factory(dict[str, Edge])
    version: int = 0
    cancelled: bool = False
    attempts: int = 0

    @classmethod
    def of(cls, snapshot: GraphSnapshot) -> Model:
        """Make the model of a graph that begins with a snapshot."""
        model = cls(version=snapshot.version)
        for node in snapshot.graph.nodes:
            known = snapshot.node(node.id)
            ran = known.state is NodeState.RUNNING
            state = NodeState.LOST if ran else NodeState.WAITING if known.state in UNSTARTED else known.state
            model.states.nodes[node.id] = state
            model.nodes[node.id] = ModelNode(
                node, attempt=known.attempt, task_id=known.task_id, result=known.result, error=known.error
            )
        for edge in snapshot.graph.edges:
            model.connect(edge).holds = snapshot.decisions.get(edge.id or "")
        model.states.settle()
        return model

    # Edits.

    def edited(self, changes: Sequence[Change]) -> Model | None:
        """Return the graph after an edit; None if the edit must be refused."""
        edited = Model(
            self.states.edited(), dict(self.nodes), dict(self.edges), self.version, self.cancelled, self.attempts
        )
        try:
            for change in changes:
                edited._apply(change)
            edited.states.check_cycles()
        except Refused:
            return None
        # What was added and removed again is no change, and an edit without changes makes no version.
        if _identities(edited.edges) != _identities(self.edges) or _identities(edited.nodes) != _identities(self.nodes):
            edited.version += 1
        known = {node.serial for node in self.nodes.values()}
        if any(node.serial not in known for node in edited.nodes.values()):
            edited.cancelled = False
        return edited

    def _apply(self, change: Change) -> None:
        states = self.states
        if change.node is not None:
            node_id = change.node.id
            if change.method == "add":
                if node_id in states.nodes:
                    raise Refused
                states.nodes[node_id] = NodeState.WAITING
                self.nodes[node_id] = ModelNode(change.node)
                for source in change.after:
                    self._connect_checked(Edge(source, node_id))
                return
            states.check_editable(node_id)
            if change.method == "replace":
                self.nodes[node_id] = attrs.evolve(self.nodes[node_id], spec=change.node)
            else:
                self._remove(node_id)
        elif change.edge is not None and change.method == "connect":
            self._connect_checked(change.edge)
        elif change.edge is not None:
            states.check_editable(change.edge.target)
            self._disconnect(lambda edge: (edge.source, edge.target) == (change.edge.source, change.edge.target))  # type: ignore[union-attr]

    def _remove(self, node_id: str) -> None:
        if any(node_id in (edge.source, edge.target) for edge in self.states.edges.values()):
            self._disconnect(lambda edge: node_id in (edge.source, edge.target))
        del self.states.nodes[node_id], self.nodes[node_id]
        # A node with the same id that is added later is not held.
        self.states.holds.pop(node_id, None)

    def _connect_checked(self, edge: Edge) -> None:
        if edge.source not in self.states.nodes:
            raise Refused
        self.states.check_editable(edge.target)
        if edge.id in self.edges:
            raise Refused
        self.connect(edge)

    def connect(self, edge: Edge) -> NaiveEdge:
        """Add an edge."""
        key = edge.id or f"?{next(_serials)}"
        self.edges[key] = edge
        naive = self.states.edges[key] = NaiveEdge(
            edge.source, edge.target, edge.when, met=_is_met(edge, self.nodes[edge.source].result)
        )
        return naive

    def _disconnect(self, concerns: Callable[[NaiveEdge], bool]) -> None:
        keys = [key for key, edge in self.states.edges.items() if concerns(edge)]
        if not keys:
            raise Refused
        for key in keys:
            del self.states.edges[key], self.edges[key]

    # What happens.

    def hold(self, node_ids: Iterable[str]) -> list[tuple[str, int]]:
        """Hold nodes, and return what `release` takes."""
        held = [(node_id, self.nodes[node_id].serial) for node_id in node_ids]
        for node_id, _ in held:
            self.states.holds[node_id] += 1
        return held

    def release(self, held: Iterable[tuple[str, int]]) -> None:
        """Release nodes, as far as they are still there."""
        for node_id, serial in held:
            if node_id in self.nodes and self.nodes[node_id].serial == serial:
                self.states.holds[node_id] -= 1
        self.states.settle()

    def end(self, node_id: str, state: NodeState, result: JSON, error: str | None) -> None:
        """End a node, without deciding its edges."""
        node = self.nodes[node_id]
        self.states.nodes[node_id] = state
        node.result, node.error, node.cancelling = result, error, False
        for key, edge in self.edges.items():
            if edge.source == node_id:
                self.states.edges[key].met = _is_met(edge, result)

    def sources(self, node_id: str) -> dict[str, tuple[str, JSON, str | None]]:
        """Return the states, results and errors of the nodes before a node."""
        before = {edge.source for edge in self.states.edges.values() if edge.target == node_id}
        return {
            each: (self.states.nodes[each].value, self.nodes[each].result, self.nodes[each].error) for each in before
        }

    # What is compared.

    @property
    def decisions(self) -> Decisions:
        """The decided edges."""
        return Counter(
            (edge.source, edge.target, edge.when, str(edge.condition), holds)
            for key, edge in self.edges.items()
            if (holds := self.states.edges[key].holds) is not None
        )

    @property
    def has_ended(self) -> bool:
        """Whether all nodes have ended."""
        return not any(state in (*UNSTARTED, NodeState.RUNNING) for state in self.states.nodes.values())

    @property
    def state(self) -> GraphState:
        """The graph's state, as it follows from its nodes."""
        found = set(self.states.nodes.values())
        if not self.has_ended:
            return GraphState.RUNNING
        if self.cancelled:
            return GraphState.CANCELLED
        if not found & {NodeState.FAILED, NodeState.LOST, NodeState.CANCELLED}:
            return GraphState.COMPLETED
        return GraphState.PARTIALLY_FAILED if NodeState.COMPLETED in found else GraphState.FAILED


def decisions_of(snapshot: GraphSnapshot) -> Decisions:
    """Return the decided edges of a snapshot. Edges without an id of their own have another one there than in the model."""
    return Counter(
        (edge.source, edge.target, edge.when, str(edge.condition), snapshot.decisions[edge.id])
        for edge in snapshot.graph.edges
        if edge.id is not None and edge.id in snapshot.decisions
    )


def _identities(items: Mapping[str, object]) -> dict[str, int]:
    return {key: id(item) for key, item in items.items()}


def _is_met(edge: Edge, result: JSON) -> bool:
    condition = edge.condition
    if not isinstance(condition, Condition) or not isinstance(result, dict) or "value" not in result:
        return False
    value, wanted = result["value"], condition.value
    assert isinstance(value, int)
    assert isinstance(wanted, int)
    return {"eq": value == wanted, "lt": value < wanted, "ge": value >= wanted, "exists": True}[condition.test]
