"""Task graphs of known shapes."""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from galaxy_trio.graph import Edge, Node

if TYPE_CHECKING:
    from collections.abc import Sequence


class Parts(NamedTuple):
    """The parts of a graph, from which it is made."""

    nodes: list[Node]
    edges: list[Edge]


def layers(count: int, width: int) -> Parts:
    """Make layers of nodes, each of which waits for all nodes of the layer before its own. A width of 1 makes a chain."""
    rows = _rows([width] * count)
    return Parts(
        [node for row in rows for node in row],
        [
            Edge(source.id, target.id)
            for before, after in itertools.pairwise(rows)
            for source, target in itertools.product(before, after)
        ],
    )


def plan(seed: int) -> Parts:
    """Make a plan in the shape of NebulaBench's: 17 nodes, of which 10 are on the longest path and at most 5 can run together."""
    random = Random(seed)
    widths = [1] * 10
    while sum(widths) < 17:
        layer = random.randrange(len(widths))
        widths[layer] += widths[layer] < 5
    rows = _rows(widths)
    edges: list[Edge] = []
    for before, after in itertools.pairwise(rows):
        for target in after:
            sources = random.sample(before, random.randint(1, len(before)))
            edges += [Edge(source.id, target.id) for source in sources]
    return Parts([node for row in rows for node in row], edges)


def _rows(widths: Sequence[int]) -> list[list[Node]]:
    numbers = itertools.count()
    return [[Node(f"node-{next(numbers)}", "work") for _ in range(width)] for width in widths]
