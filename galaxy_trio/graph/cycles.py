"""Cycles of a graph: found in a time that grows with the nodes and edges that may be part of one, and without recursion."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

_Neighbours: TypeAlias = "Callable[[str], Iterable[str]]"


def find_cycle(targets: Mapping[str, Collection[str]]) -> list[str]:
    """Return the nodes of a cycle in its order, or nothing if there is none.

    Args:
        targets: For each node, the targets of its edges.
    """
    undecided = dict.fromkeys(targets, 0)
    for nodes in targets.values():
        for target in nodes:
            undecided[target] += 1
    free = [node for node, count in undecided.items() if not count]
    while free:
        node = free.pop()
        del undecided[node]
        for target in targets[node]:
            undecided[target] -= 1
            if not undecided[target]:
                free.append(target)
    # Each of the rest has a predecessor in the rest: going back from one, a node comes again.
    source_of = {target: node for node in undecided for target in targets[node]}
    path = dict[str, None]()
    node = next(iter(undecided), "")
    while node and node not in path:
        path[node] = None
        node = source_of[node]
    cycle = list(path)
    return cycle[cycle.index(node) :][::-1] if node else []


def show_cycle(nodes: Sequence[str]) -> str:
    """Name the nodes of a cycle, the first 20 of a long one."""
    most = 20
    shown = [repr(node) for node in (*nodes[:most], *(() if len(nodes) > most else nodes[:1]))]
    return " -> ".join(shown if len(nodes) <= most else [*shown, f"… ({len(nodes):,} nodes)"])


def nodes_between(begins: Iterable[str], ends: Iterable[str], after: _Neighbours, before: _Neighbours) -> set[str]:
    """Return the nodes that can be reached from one of some nodes, and from which one of some others can be reached.

    The search begins on both sides. The side that is complete first limits the other one, so that new nodes behind all others, or in front
    of them, are cheap.

    Args:
        begins: The nodes from which they are reached.
        ends: The nodes that can be reached from them.
        after: Returns the targets of a node's edges.
        before: Returns the sources of the edges to a node.
    """
    ahead, behind = set(begins), set(ends)
    pending_ahead, pending_behind = list(ahead), list(behind)
    while pending_ahead and pending_behind:
        _visit(pending_ahead, ahead, after)
        _visit(pending_behind, behind, before)
    return _reach_within(ahead, ends, before) if not pending_ahead else _reach_within(behind, begins, after)


def _visit(pending: list[str], reached: set[str], neighbours: _Neighbours) -> None:
    for node in neighbours(pending.pop()):
        if node not in reached:
            reached.add(node)
            pending.append(node)


def _reach_within(limits: set[str], begins: Iterable[str], neighbours: _Neighbours) -> set[str]:
    reached = limits.intersection(begins)
    pending = list(reached)
    while pending:
        for node in limits.intersection(neighbours(pending.pop())) - reached:
            reached.add(node)
            pending.append(node)
    return reached
