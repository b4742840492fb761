"""What a retry costs: time in proportion to the edges whose decisions it takes back."""

from __future__ import annotations

import pytest

from galaxy_trio.graph import Edge, Node, NodeState
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode
from galaxy_trio.graph.state_machine import StateMachine

from .support.counting_tables import CountingTables


@pytest.mark.parametrize("widths", [(1, 300, 1), (1, 300, 1, 300), (1, *(10,) * 30)])
def test_retry_of_a_node_that_skipped_all_others_looks_at_each_edge_a_few_times(widths: tuple[int, ...]) -> None:
    """In layers, each node of which waits for all of the layer before. A skipped node counts once how many edges refuse it."""
    tables = CountingTables()
    machine = StateMachine[LiveNode, LiveEdge](tables, lambda _: True)
    before: list[str] = []
    for number, width in enumerate(widths):
        layer = [tables.add_node(Node(f"{number}.{place}", "work")).id for place in range(width)]
        for node_id in layer:
            machine.count_new(node_id)
        for edge in tables.add_edges([Edge(source, target) for source in before for target in layer]):
            machine.add_edge(edge)
        before = layer
    machine.make_ready("0.0")
    machine.start("0.0")
    machine.end("0.0", NodeState.FAILED)
    assert machine.moved[NodeState.SKIPPED] == len(tables.nodes) - 1
    tables.loaded = 0
    machine.retry("0.0")
    assert machine.moved[NodeState.WAITING] == len(tables.nodes) - 1
    assert tables.loaded <= 5 * (len(tables.nodes) + len(tables.edges))
