"""The plan of a graph's run, which can be printed."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from galaxy_trio.graph import Edge, Graph, Node
from tests.simulation.plan import Plan

ActionKind: TypeAlias = Literal[
    "edit", "refused edit", "outdated edit", "cancel", "cancel graph", "retry", "hold", "refused hold", "wait"
]


@attrs.frozen
class Action:
    """A call of the graph's user. What it concerns is chosen when its time has come, by its number, among the nodes that there are.

    Attributes:
        at: Seconds from the beginning of the run.
        number: Selects the nodes that it concerns.
        seconds: The length of a hold.
        reply: It follows the end of so many tasks, in the step in which this side received it, in place of a time.
        passes: It comes so many scheduler passes later.
    """

    at: float
    kind: ActionKind
    number: int
    seconds: float
    reply: int | None = None
    passes: int = 0

    def __str__(self) -> str:
        length = f" for {self.seconds:g} s" if self.kind == "hold" else ""
        begins = f"{self.at:8.3f}" if self.reply is None else f"after the end of {self.reply} tasks"
        return f"{begins} and {self.passes} passes: {self.kind}{length}, number {self.number}"


@attrs.frozen
class PlannerPlan:
    """The planner of the run.

    Attributes:
        timeout: Seconds that it may take.
        thinks: The lengths of its thoughts, one of which is chosen for each call.
        edits: Percentage of its calls that return an edit.
        refused: Percentage of its edits that must be refused.
    """

    timeout: float
    thinks: tuple[float, ...]
    edits: int
    refused: int

    def __str__(self) -> str:
        thinks = "/".join(f"{each:g}" for each in self.thinks)
        return f"planner: thinks {thinks} s within {self.timeout:g} s, edits {self.edits} %, {self.refused} % of them refused"


@attrs.frozen
class GraphPlan:
    """The plan of a graph's run.

    Attributes:
        world: The devices, the network and the faults.
        leaves_at: The time at which the block is left; None to leave it when everything has ended.
        leaves_by_error: Whether an exception leaves it then.
        continues: Whether another block then continues with a snapshot.
    """

    world: Plan
    graph: Graph
    max_concurrent: int | None
    planner: PlannerPlan | None
    actions: tuple[Action, ...]
    leaves_at: float | None
    leaves_by_error: bool
    continues: bool

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.world.seed

    def __str__(self) -> str:
        lines = [
            str(self.world),
            f"at most {self.max_concurrent} nodes at a time, {self.planner or 'no planner'}",
            f"left at {self.leaves_at}"
            + (" by an error" if self.leaves_by_error else "")
            + (", and continued" if self.continues else ""),
        ]
        lines += map(shown_node, self.graph.nodes)
        lines += map(shown_edge, self.graph.edges)
        return "\n".join([*lines, *map(str, self.actions)])


def shown_node(node: Node) -> str:
    """Show a node on one line."""
    properties = [f"on {node.device}"] if node.device else [*filter(None, [node.os]), *sorted(node.capabilities)]
    properties += [f"priority {node.priority}"] if node.priority else []
    properties += [f"within {node.timeout:g} s"] if node.timeout < 1000 else []
    properties += [f"{node.retries} retries after {node.backoff:g} s"] if node.retries else []
    properties += ["also if lost"] if node.retry_lost else []
    return f"node {node.request}: {', '.join(properties) or 'anywhere'}"


def shown_edge(edge: Edge) -> str:
    """Show an edge on one line."""
    return f"edge {edge.id or ''} {edge.source} -> {edge.target} {edge.when} {edge.condition or ''}"
