"""Makes the plan of a graph's run from a seed, and random nodes and edges."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio.graph import Condition, Edge, Graph, Node, When
from galaxy_trio.testing import Conditions
from tests.simulation.graphs.plan import Action, ActionKind, GraphPlan, PlannerPlan
from tests.simulation.plan import DevicePlan, Disturbance, DisturbanceKind, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.graph import Comparison

_FAULTS: Final[tuple[DisturbanceKind, ...]] = (
    "reset",
    "partition",
    "silence",
    "slow reader",
    "pooled reset",
    "pooled partition",
    "pooled silence",
    "pooled close",
    "refusal of connections",
    "death of device",
    "leave of device",
    "death of server",
    "stop of server",
    "disconnect",
    "reconnect",
    "removal",
    "immediate removal",
)
_ACTIONS: Final[dict[ActionKind, int]] = {
    "edit": 6,
    "refused edit": 3,
    "outdated edit": 1,
    "cancel": 3,
    "retry": 3,
    "hold": 4,
    "refused hold": 1,
    "wait": 1,
}
"""The users' actions, and how often each one is chosen in relation to the others."""
_WHENS: Final = (*((When.SUCCESS,) * 9), *((When.END,) * 5), *((When.FAILURE,) * 3), *((When.CONDITION,) * 3))
_TESTS: Final[tuple[Comparison, ...]] = ("eq", "lt", "ge", "exists")


def make_graph_plan(seed: int) -> GraphPlan:
    """Make the plan of a seed."""
    random = Random(f"graph plan {seed}")
    devices = tuple(
        DevicePlan(f"d{number}", random.choice(["linux", "windows"]), random.choice(["cli", "gui"]), slots)
        for number, slots in enumerate(random.choices([1, 1, 1, 2, 3], k=random.choice([1, 2, 2, 3, 4])))
    )
    span = random.choice([1.0, 10.0, 10.0, 30.0])
    disturbances: tuple[Disturbance, ...] = ()
    if random.random() < 0.6:
        disturbances = _disturbances(random, devices, span)
    actions = _actions(random, span, [fault.at for fault in disturbances])
    world = Plan(
        seed,
        devices,
        Conditions(
            latency=random.choice([0.0, 0.001, 0.02, 0.3]),
            jitter=random.choice([0.0, 0.0, 0.01]),
            bandwidth=random.choice([float("inf"), float("inf"), 1e6]),
        ),
        max_concurrent_tasks=None,
        max_queued=random.choice([1000, 1000, 1000, 2]),
        keepalive_expiry=random.choice([0.0, 5.0, 5.0, 100.0]),
        dishonest=0,
        closes_at=None,
        drain=0.0,
        steps=disturbances,
    )
    leaves = random.random() < 0.2
    return GraphPlan(
        world,
        _graph(random, devices),
        max_concurrent=random.choice([None, None, None, 1, 2, 4]),
        planner=_planner(random) if random.random() < 0.4 else None,
        actions=actions,
        leaves_at=round(random.uniform(0, span), 3) if leaves else None,
        leaves_by_error=leaves and random.random() < 0.5,
        continues=leaves and random.random() < 0.7,
    )


def _disturbances(random: Random, devices: Sequence[DevicePlan], span: float) -> tuple[Disturbance, ...]:
    disturbances = [
        Disturbance(
            at=round(random.uniform(0, span * 1.2), 3),
            kind=random.choice(_FAULTS),
            device=random.choice(devices).name,
            seconds=random.choice([0.0, 0.1, 2.0, 10.0, 45.0]),
            number=random.randrange(10),
        )
        for _ in range(random.choice([1, 1, 2, 3, 5, 8]))
    ]
    return tuple(sorted(disturbances, key=lambda fault: fault.at))


def _actions(random: Random, span: float, faults: Sequence[float]) -> tuple[Action, ...]:
    actions: list[Action] = []
    for _ in range(random.choice([0, 2, 5, 10, 20])):
        # Often in the step of a fault, of the beginning or of another action: most bugs are between two steps.
        moments = [0.0, *faults, *(action.at for action in actions)]
        at = random.choice(moments) if random.random() < 0.4 else round(random.uniform(0, span * 1.5), 3)
        actions.append(_action(random, at))
    for _ in range(random.choice([0, 0, 2, 5])):
        reply, passes = random.randint(1, 20), random.randrange(4)
        actions.append(attrs.evolve(_action(random, 0.0), reply=reply, passes=passes))
    if random.random() < 0.15:
        actions.append(Action(round(random.uniform(0, span), 3), "cancel graph", 0, 0.0))
    return tuple(sorted(actions, key=lambda action: action.at))


def _action(random: Random, at: float) -> Action:
    kind = random.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
    seconds = random.choice([0.0, 0.5, 2.0, 20.0])
    return Action(at, kind, random.randrange(10_000), seconds, passes=random.choice([0, 0, 1, 2, 5]))


def _planner(random: Random) -> PlannerPlan:
    return PlannerPlan(
        timeout=random.choice([600.0, 600.0, 3.0]),
        thinks=tuple(random.sample([0.0, 0.0, 0.5, 2.0, 10.0], random.randint(1, 4))),
        edits=random.choice([0, 30, 70]),
        refused=random.choice([0, 20, 90]),
    )


def _graph(random: Random, devices: Sequence[DevicePlan]) -> Graph:
    nodes: list[Node] = []
    edges: list[Edge] = []
    # Long, wide or dense.
    numbers_of_edges = random.choice([[0, 0, 1], [1, 1, 2], [0, 1, 2, 3, 5]])
    for number in range(random.choice([1, 3, 6, 10, 10, 20, 30])):
        node = make_node(random, f"n{number}", devices)
        for _ in range(min(len(nodes), random.choice(numbers_of_edges))):
            source = random.choice(nodes[-5:] if random.random() < 0.7 else nodes).id
            edge_id = f"e{len(edges)}" if random.random() < 0.5 else None
            edges.append(make_edge(random, source, node.id, edge_id))
        nodes.append(node)
    return Graph(nodes, edges)


def make_node(random: Random, node_id: str, devices: Sequence[DevicePlan]) -> Node:
    """Make a random node."""
    where: dict[str, object] = {}
    chance = random.random()
    device = random.choice(devices)
    if chance < 0.35:
        where["device"] = device.name
    elif chance < 0.65:
        # A device with both may be missing: then the node fails.
        where["os"] = device.platform
        where["capabilities"] = {random.choice(devices).feature if chance < 0.4 else device.feature}
    seconds = random.choice([0.0, 0.0, 0.0, 0.5, 2.0, 8.0])
    failures = random.choice([0, 0, 0, 0, 0, 1, 2, 100])
    return Node(
        node_id,
        f"{node_id} {seconds} {random.randrange(4)} {failures}",
        priority=random.choice([0, 0, 0, -50, 50, 100]),
        timeout=random.choice([1000.0, 1000.0, 60.0, 60.0, 5.0, 0.7]),
        retries=random.choice([0, 0, 1, 3]),
        backoff=random.choice([0.0, 1.0, 5.0]),
        retry_lost=random.random() < 0.3,
        tips="be quick" if random.random() < 0.1 else (),
        **where,  # type: ignore[arg-type]
    )


def make_edge(random: Random, source: str, target: str, edge_id: str | None) -> Edge:
    """Make a random edge."""
    when = random.choice(_WHENS)
    condition = Condition("/value", random.choice(_TESTS), random.randrange(4)) if when is When.CONDITION else None
    return Edge(source, target, when, condition=condition, id=edge_id)
