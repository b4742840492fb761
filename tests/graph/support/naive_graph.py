"""A naive model of task graphs: after each change, it looks at every node and edge until nothing changes any more."""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs

from galaxy_trio.graph.model import When
from galaxy_trio.graph.state_machine import NodeState

UNSTARTED: Final = frozenset({NodeState.WAITING, NodeState.READY})
RETRYABLE: Final = frozenset({NodeState.FAILED, NodeState.LOST, NodeState.CANCELLED})
ENDED: Final = RETRYABLE | {NodeState.COMPLETED, NodeState.SKIPPED}


@attrs.define
class NaiveEdge:
    """An edge, and whether its condition is met."""

    source: str
    target: str
    when: When
    met: bool
    holds: bool | None = None


class Refused(Exception):
    """The model refuses a change."""


@attrs.define
class NaiveGraph:
    """The states of nodes, and the decisions of edges."""

    nodes: dict[str, NodeState] = attrs.Factory(dict[str, NodeState])
    edges: dict[str, NaiveEdge] = attrs.Factory(dict[str, NaiveEdge])
    holds: Counter[str] = attrs.Factory(Counter[str])

    def settle(self) -> None:
        """Decide and skip until nothing changes."""
        changed = True
        while changed:
            changed = False
            for edge in self.edges.values():
                state = self.nodes[edge.source]
                if edge.holds is None and state in ENDED and not self.holds[edge.source]:
                    edge.holds = _holds(edge, state)
                    changed = True
            for node, state in self.nodes.items():
                if state in UNSTARTED:
                    decisions = [edge.holds for edge in self.edges.values() if edge.target == node]
                    new = (
                        NodeState.SKIPPED
                        if False in decisions
                        else NodeState.WAITING
                        if None in decisions
                        else NodeState.READY
                    )
                    changed |= new is not state
                    self.nodes[node] = new

    def end(self, node: str, state: NodeState) -> None:
        """End a node."""
        self.nodes[node] = state
        self.settle()

    def retry(self, node: str) -> None:
        """Let a node run again."""
        if self.nodes[node] not in RETRYABLE or any(
            edge.holds is False for edge in self.edges.values() if edge.target == node
        ):
            raise Refused
        self.nodes[node] = NodeState.WAITING
        reset = {node}
        while reset:
            for edge in self.edges.values():
                if edge.source in reset and self.nodes[edge.target] is not NodeState.RUNNING:
                    edge.holds = None
            reset = {
                other
                for other, state in self.nodes.items()
                if state is NodeState.SKIPPED
                and not any(edge.holds is False for edge in self.edges.values() if edge.target == other)
                # A skipped node that is held may be the source of undecided edges only.
                and any(edge.target == other for edge in self.edges.values())
            }
            for other in reset:
                self.nodes[other] = NodeState.WAITING
        self.settle()

    def edited(self) -> NaiveGraph:
        """Return a copy for an edit."""
        edges = {name: attrs.evolve(edge) for name, edge in self.edges.items()}
        return NaiveGraph(dict(self.nodes), edges, Counter(self.holds))

    def check_editable(self, node: str) -> None:
        """Refuse a node that is not there or has started."""
        if self.nodes.get(node) not in UNSTARTED:
            raise Refused

    def check_cycles(self) -> None:
        """Refuse a cycle."""
        rest = set(self.nodes)
        while rest:
            free = {
                node for node in rest if not any(e.target == node and e.source in rest for e in self.edges.values())
            }
            if not free:
                raise Refused
            rest -= free


def _holds(edge: NaiveEdge, state: NodeState) -> bool:
    return {
        When.SUCCESS: state is NodeState.COMPLETED,
        When.FAILURE: state in {NodeState.FAILED, NodeState.LOST},
        When.CONDITION: state is NodeState.COMPLETED and edge.met,
        When.END: True,
    }[edge.when]
