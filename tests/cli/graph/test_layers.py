"""The layers of a graph, and its edges in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio._cli.graph.layers import edges_in_words, layers_of
from galaxy_trio.graph import Condition, Edge, Graph, Node, When


def graph_of(size: int, pairs: set[tuple[int, int]]) -> Graph:
    """Make a graph whose edges go from the smaller to the larger number; its nodes are given from the largest on."""
    edges = [Edge(str(min(pair)), str(max(pair))) for pair in pairs if pair[0] != pair[1]]
    return Graph([Node(str(number), "x") for number in reversed(range(size))], edges)


@given(
    st.integers(0, 12).flatmap(
        lambda size: st.tuples(st.just(size), st.sets(st.tuples(*[st.integers(0, max(size - 1, 0))] * 2)))
    )
)
def test_each_node_is_one_layer_after_the_last_of_those_that_it_waits_for(
    case: tuple[int, set[tuple[int, int]]],
) -> None:
    size, pairs = case
    graph = graph_of(size, {pair for pair in pairs if max(pair) < size})
    layers = layers_of(graph)
    number = {node.id: at for at, layer in enumerate(layers) for node in layer}
    assert len(number) == sum(map(len, layers)) == size
    for node_id, layer in number.items():
        sources = [number[edge.source] for edge in graph.edges if edge.target == node_id]
        assert layer == max(sources, default=-1) + 1


def test_long_chain_has_a_layer_for_each_node() -> None:
    graph = graph_of(10_000, {(number, number + 1) for number in range(9_999)})
    assert [node.id for [node] in layers_of(graph)] == [str(number) for number in range(10_000)]


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([], ""),
        ([Edge("a", "z"), Edge("b", "z")], "after a, b"),
        ([Edge("a", "z", When.FAILURE), Edge("b", "z", When.END)], "after a failure of a; after any end of b"),
        ([Edge("a", "z", When.CONDITION, condition=Condition("/n", "ge", 2))], "after a if /n ge 2"),
        ([Edge("a", "z", When.CONDITION, condition=Condition("", "eq", "ä"))], 'after a if its result eq "ä"'),
        ([Edge("a", "z", When.CONDITION, condition=Condition("/n", "exists"))], "after a if /n exists"),
        ([Edge("a", "z", When.CONDITION, condition=Condition("/n", "truthy"))], "after a if /n is truthy"),
        ([Edge("a", "z", When.CONDITION, condition=bool)], "after a if a function holds"),
    ],
)
def test_edges_are_named_with_their_kind(edges: list[Edge], words: str) -> None:
    assert edges_in_words(edges) == words


def test_long_lists_and_values_are_cut() -> None:
    many = [Edge(str(number), "z") for number in range(9_999)]
    assert edges_in_words(many).endswith("10, 11, … 9,987 more")
    condition = Condition("/x", "in", ["y" * 100_000])
    conditional = [Edge(str(number), "z", When.CONDITION, condition=condition) for number in range(100)]
    words = edges_in_words(conditional)
    assert len(words) < 2_000
    assert words.endswith("; … 88 more")
