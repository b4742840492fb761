"""The layers of a task graph, and its edges in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from galaxy_trio._cli.devices_table import REASON_LENGTH
from galaxy_trio.graph import Condition, When

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from galaxy_trio.graph import Edge, Graph, Node

_MAX_SOURCES: Final = 12
"""Edges of one kind into a node that are named."""
_MAX_VALUE: Final = 60
"""Characters of a condition's value that are shown."""
_PHRASES: Final = {
    When.SUCCESS: "after {}",
    When.FAILURE: "after a failure of {}",
    When.END: "after any end of {}",
}


def layers_of(graph: Graph) -> list[list[Node]]:
    """Return the nodes by layer: each is in the layer after the last of those that it waits for.

    Takes a time that grows with nodes and edges.
    """
    targets: dict[str, list[str]] = {node.id: [] for node in graph.nodes}
    waits = dict.fromkeys(targets, 0)
    for edge in graph.edges:
        targets[edge.source].append(edge.target)
        waits[edge.target] += 1
    layer = {node_id: 0 for node_id, count in waits.items() if not count}
    free = list(layer)
    for node_id in free:
        for target in targets[node_id]:
            layer[target] = max(layer.get(target, 0), layer[node_id] + 1)
            waits[target] -= 1
            if not waits[target]:
                free.append(target)
    layers: list[list[Node]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in graph.nodes:
        layers[layer[node.id]].append(node)
    return layers


def edges_in_words(edges: Sequence[Edge]) -> str:
    """Say what a node waits for, from the edges to it: ``after fetch, read; after a failure of merge``."""
    phrases: list[str] = []
    for when, phrase in _PHRASES.items():
        sources = [edge.source for edge in edges if edge.when is when]
        if sources:
            phrases.append(phrase.format(", ".join(_first(sources))))
    conditional = [edge for edge in edges if edge.when is When.CONDITION]
    phrases += _first([f"after {edge.source} if {_condition_in_words(edge)}" for edge in conditional])
    return "; ".join(phrases)


def shortened(reason: str) -> str:
    """Cut a reason to the length that is shown."""
    return reason if len(reason) <= REASON_LENGTH else f"{reason[:REASON_LENGTH]}…"


def _first(items: list[str]) -> Iterable[str]:
    more = len(items) - _MAX_SOURCES
    return items if more <= 0 else [*items[:_MAX_SOURCES], f"… {more:,} more"]


def _condition_in_words(edge: Edge) -> str:
    condition = edge.condition
    if not isinstance(condition, Condition):
        return "a function holds"
    place = condition.at or "its result"
    if condition.test in ("exists", "truthy"):
        return f"{place} {'exists' if condition.test == 'exists' else 'is truthy'}"
    value = json.dumps(condition.value, ensure_ascii=False)
    shown = value if len(value) <= _MAX_VALUE else f"{value[:_MAX_VALUE]}…"
    return f"{place} {condition.test} {shown}"
