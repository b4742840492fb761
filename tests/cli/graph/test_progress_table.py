"""The live table of ``galaxy-trio graph run``: readable at any size, with one node or with thousands."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from galaxy_trio._cli.graph.progress import GraphProgress
from galaxy_trio._cli.graph.progress_table import progress_table
from galaxy_trio.graph import Edge, Graph, GraphSnapshot, Node, NodeResult, NodeState
from tests.cli.support.hostile import EVIL, harmful_characters


def progress_of(**results: NodeResult) -> GraphProgress:
    """Make a chain of nodes with these results; each names the device ``laptop``."""
    names = list(results)
    nodes = [Node(name, name, device="laptop", retries=index) for index, name in enumerate(names)]
    return GraphProgress(GraphSnapshot(Graph(nodes, [*map(Edge, names, names[1:])]), nodes=results))


def shown(progress: GraphProgress, *notes: str, width: int = 80, rows: int = 23) -> list[str]:
    lines = progress_table(progress, width=width, rows=rows, notes=notes).plain.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= max(rows, 4 + len(notes))
    return lines


async def test_each_node_has_its_layer_state_device_time_and_attempt() -> None:
    progress = progress_of(
        a=NodeResult(NodeState.COMPLETED, 1, device_id="phone"),
        b=NodeResult(NodeState.RUNNING, 2, device_id="desk"),
        c=NodeResult(),
    )
    progress.nodes["a"].took = 4.0
    progress.nodes["b"].started = trio.current_time() - 180
    assert shown(progress, "desk is busy") == [
        "node  layer  state      device   time  attempt",
        "a         1  completed  phone     4 s        1",
        "b         2  running    desk    3 min   2 of 2",
        "c         3  waiting    laptop      -        -",
        "1 running, 1 waiting, 1 completed",
        "  desk is busy",
    ]


async def test_reason_of_a_failure_is_below_its_node_with_the_time_of_the_next_attempt() -> None:
    progress = progress_of(
        a=NodeResult(NodeState.READY, 1, error="no paper " * 100),
        b=NodeResult(NodeState.CANCELLED, error="it was cancelled"),
    )
    progress.nodes["a"].next_try = trio.current_time() + 5.2
    lines = shown(progress)
    assert lines[2].startswith("  no paper no paper")
    assert " ".join(lines).count("paper") < 30
    assert lines[4].endswith("… (retry in 5 s)")
    assert lines[5].split() == ["b", "2", "cancelled", "laptop", "-", "-"]
    assert len(lines) == 7


async def test_nodes_that_run_or_failed_are_shown_if_there_is_no_room_for_all() -> None:
    states = dict.fromkeys(map(str, range(10_000)), NodeState.COMPLETED)
    states |= {"5": NodeState.WAITING, "7000": NodeState.FAILED, "8000": NodeState.RUNNING, "9000": NodeState.LOST}
    graph = Graph([Node(name, name) for name in states])
    results = {
        name: NodeResult(state, error="why" if state is NodeState.FAILED else None) for name, state in states.items()
    }
    progress = GraphProgress(GraphSnapshot(graph, nodes=results))
    lines = shown(progress, rows=9)
    assert [line.split()[0] for line in lines] == ["node", "0", "5", "7000", "why", "8000", "9000", "…", "1"]
    assert lines[-2] == "… 9,995 more"
    assert lines[-1] == "1 running, 1 failed, 1 lost, 1 waiting, 9,996 completed"


async def test_no_line_counts_hidden_nodes_if_all_have_room() -> None:
    progress = progress_of(a=NodeResult(), b=NodeResult(), c=NodeResult())
    assert len(shown(progress, rows=5)) == 5
    assert shown(progress, rows=4)[-2] == "… 2 more"


async def test_notes_have_a_few_lines_at_most() -> None:
    lines = shown(progress_of(a=NodeResult()), *(f"note {number}" for number in range(50)), rows=10)
    assert lines[-4:] == ["  note 0", "  note 1", "  note 2", "  note 3"]


@given(
    st.lists(
        st.tuples(st.sampled_from(NodeState), st.text(min_size=1, max_size=60), st.none() | st.text(max_size=300)),
        max_size=30,
    ),
    st.integers(20, 200),
    st.integers(1, 60),
)
def test_table_never_exceeds_the_terminal(
    cases: list[tuple[NodeState, str, str | None]], width: int, rows: int
) -> None:
    async def show() -> None:
        nodes = [Node(f"{number}", "x", device=device) for number, (_, device, _) in enumerate(cases)]
        results = {
            node.id: NodeResult(state, 1, error=error) for node, (state, _, error) in zip(nodes, cases, strict=True)
        }
        progress = GraphProgress(GraphSnapshot(Graph(nodes), nodes=results))
        lines = progress_table(progress, width=width, rows=rows).plain.splitlines()
        assert max(map(cell_len, lines)) <= width
        # The header, a node with its reason, the line that counts the others, and the sum.
        assert len(lines) <= rows or sum(not line.startswith("  ") for line in lines) <= 4

    trio.run(show)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
async def test_names_and_reasons_control_nothing_and_fit(width: int) -> None:
    names = [f"{EVIL}{number}{'長い' * 50}" for number in range(3)]
    graph = Graph([Node(name, "x", device=EVIL) for name in names])
    results = {name: NodeResult(NodeState.FAILED, error=EVIL * 20, device_id=EVIL) for name in names}
    lines = shown(GraphProgress(GraphSnapshot(graph, nodes=results)), EVIL, width=width, rows=200)
    assert not harmful_characters("\n".join(lines))
