"""The search for cycles agrees with a naive one."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio.graph.cycles import find_cycle, nodes_between

Targets: TypeAlias = dict[str, list[str]]

NODES = "abcdefgh"
graphs = st.fixed_dictionaries({node: st.lists(st.sampled_from(NODES), max_size=4) for node in NODES})
some_nodes = st.sets(st.sampled_from(NODES))


def reachable(begins: set[str], targets: Targets) -> set[str]:
    reached = set(begins)
    for _ in NODES:
        reached |= {target for node in reached for target in targets[node]}
    return reached


def turned_around(targets: Targets) -> Targets:
    return {node: [source for source in NODES if node in targets[source]] for node in NODES}


@given(graphs, some_nodes, some_nodes)
def test_nodes_between_are_those_behind_the_begins_and_in_front_of_the_ends(
    targets: Targets, begins: set[str], ends: set[str]
) -> None:
    sources = turned_around(targets)
    found = nodes_between(begins, ends, targets.__getitem__, sources.__getitem__)
    assert found == reachable(begins, targets) & reachable(ends, sources)


@given(graphs)
def test_cycle_is_found_if_there_is_one_and_each_of_its_edges_exists(targets: Targets) -> None:
    cycle = find_cycle(targets)
    cyclic = any(node in reachable(set(targets[node]), targets) for node in NODES)
    assert bool(cycle) == cyclic
    assert all(target in targets[source] for source, target in zip(cycle, cycle[1:] + cycle[:1], strict=True))
    assert len(set(cycle)) == len(cycle)


def test_nodes_behind_all_others_are_reached_without_a_visit_of_those() -> None:
    visited: list[str] = []

    def before(node: str) -> list[str]:
        visited.append(node)
        return [str(int(node) - 1)] if node != "0" else []

    assert nodes_between(["1001"], ["1000"], lambda _: [], before) == set()
    assert len(visited) < 10
