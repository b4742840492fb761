"""The picture of a graph that ``galaxy-trio graph show`` draws."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from galaxy_trio._cli.graph.drawing import draw_graph
from galaxy_trio.graph import Condition, Edge, Graph, GraphSnapshot, Node, NodeResult, NodeState, When
from tests.cli.support.hostile import EVIL, harmful_characters

PLAN = Graph(
    [
        Node("fetch", "Download the report", capabilities={"pdf", "browser"}),
        Node("read", "Read the sheet", device="laptop"),
        Node("merge", "Merge the sheets", os="windows", name="All sheets"),
        Node("mail", "Mail the result"),
        Node("alarm", "Call the office"),
    ],
    [
        Edge("fetch", "merge"),
        Edge("read", "merge"),
        Edge("merge", "mail", When.CONDITION, condition=Condition("/exit_code", "eq", 0)),
        Edge("merge", "alarm", When.FAILURE),
    ],
)


def drawn(graph: Graph | GraphSnapshot, width: int = 80) -> list[str]:
    snapshot = graph if isinstance(graph, GraphSnapshot) else GraphSnapshot(graph)
    lines = [line.plain for line in draw_graph(snapshot, width)]
    assert max(map(cell_len, lines), default=0) <= width
    assert not harmful_characters("\n".join(lines))
    return lines


def test_nodes_are_drawn_by_layer_with_what_each_waits_for() -> None:
    assert drawn(PLAN) == [
        "  node   device        task",
        "layer 1: 2 nodes",
        "  fetch  browser, pdf  Download the report",
        "  read   laptop        Read the sheet",
        "layer 2",
        "  merge  windows       All sheets",
        "    after fetch, read",
        "layer 3: 2 nodes",
        "  mail   any           Mail the result",
        "    after merge if /exit_code eq 0",
        "  alarm  any           Call the office",
        "    after a failure of merge",
    ]


def test_states_and_errors_are_drawn_if_a_node_has_begun() -> None:
    results = {
        "fetch": NodeResult(NodeState.COMPLETED, 1),
        "read": NodeResult(NodeState.FAILED, 1, error="no\npaper " + "x" * 1_000),
        "merge": NodeResult(NodeState.CANCELLED, error="it was cancelled"),
    }
    lines = drawn(GraphSnapshot(PLAN, nodes=results))
    assert lines[0].split() == ["node", "state", "device", "task"]
    assert [line.split()[1] for line in lines if line.split()[0] in ("fetch", "read", "merge", "mail")] == [
        "completed",
        "failed",
        "cancelled",
        "waiting",
    ]
    assert "    no paper" in lines
    assert "".join(lines).count("x") < 250
    assert "it was cancelled" not in "".join(lines)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_picture_fits_into_any_terminal_and_controls_nothing(width: int) -> None:
    names = [f"{EVIL}{number}{'日本' * 60}" for number in range(3)]
    nodes = [Node(names[0], EVIL * 50, device=f"d{EVIL}"), Node(names[1], "x", os=EVIL), Node(names[2], "y")]
    edges = [
        Edge(names[0], names[1]),
        Edge(names[1], names[2], When.CONDITION, condition=Condition(f"/{EVIL}", "eq", EVIL)),
    ]
    failed = NodeResult(NodeState.FAILED, error=EVIL * 10)
    lines = drawn(GraphSnapshot(Graph(nodes, edges), nodes={names[0]: failed}), width)
    assert "\\u001b]0;" in "".join(line.strip() for line in lines)


def test_narrow_terminal_keeps_the_nodes_and_what_they_wait_for() -> None:
    lines = drawn(PLAN, 24)
    assert lines[0].split() == ["node", "device"]
    assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "][1:] == [
        "fetch", "read", "merge", "mail", "alarm",
    ]  # fmt: skip


def test_large_graph_is_drawn_completely_with_its_edges_counted() -> None:
    nodes = [Node(f"n{number}", "x") for number in range(10_000)]
    lines = drawn(Graph(nodes, [Edge(node.id, "n9999") for node in nodes[:-1]]))
    assert lines[1] == "layer 1: 9,999 nodes"
    assert len(lines) == 1 + 2 + 10_000 + 1
    assert lines[-1].endswith("n11, … 9,987 more")


def test_graph_without_nodes_has_no_picture() -> None:
    assert drawn(Graph()) == []
