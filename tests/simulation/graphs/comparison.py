"""Compares a running graph with its model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from galaxy_trio.graph.state_machine import ENDED
from tests.simulation.graphs.model import decisions_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from galaxy_trio.graph import GraphRun
    from tests.simulation.graphs.model import Model
    from tests.simulation.graphs.replay import Replay


def differences(run: GraphRun, model: Model, replay: Replay, *, planning: bool) -> Iterator[str]:
    """Describe where a graph, or what its events say of it, differs from the model, which is settled.

    Args:
        run: The graph.
        model: The model.
        replay: The graph as its events describe it.
        planning: Whether the planner has ends to think about.
    """
    snapshot, statistics = run.snapshot(), run.statistics()
    wanted = {node_id: state.value for node_id, state in model.states.nodes.items()}
    counts = {state.value: count for state, count in statistics.nodes.items() if count}
    for what, found, expected in (
        ("states", {node_id: state.value for node_id, state in run.states.items()}, wanted),
        ("states in the snapshot", {node_id: node.state.value for node_id, node in snapshot.nodes.items()}, wanted),
        ("states by the events", replay.states, wanted),
        ("counts", counts, dict(Counter(wanted.values()))),
        ("version", (run.version, snapshot.version, statistics.version, replay.version), (model.version,) * 4),
        ("decisions", decisions_of(snapshot), model.decisions),
        ("state", (run.state, statistics.state), (model.state,) * 2),
        ("number of edges", statistics.edges, len(model.edges)),
        ("number of attempts", statistics.attempts, model.attempts),
        ("work of the planner", statistics.planning, planning),
    ):
        if found != expected:
            yield f"the {what}: {_difference(found, expected)}"
    for node_id, node in model.nodes.items():
        known = snapshot.node(node_id)
        if (known.attempt, replay.attempts.get(node_id)) != (node.attempt,) * 2:
            yield f"{node_id} has {known.attempt} attempts, and {node.attempt} were begun"
        if known.state in ENDED and (known.result, known.error) != (node.result, node.error):
            yield f"{node_id} has the result {known.result}, {known.error} instead of {node.result}, {node.error}"


def _difference(found: object, expected: object) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        left, right = cast("dict[object, object]", found), cast("dict[object, object]", expected)
        keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
        return f"{ {key: left.get(key) for key in keys} } instead of { {key: right.get(key) for key in keys} }"
    return f"{found} instead of {expected}"
