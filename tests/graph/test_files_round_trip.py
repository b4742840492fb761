"""What is written is read again: random snapshots in each form and format."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given

from galaxy_trio.graph import (
    Graph,
    GraphSnapshot,
    Node,
    NodeResult,
    NodeState,
    graph_document,
    read_graph,
    write_graph,
)
from tests.graph.support.snapshots import snapshots

if TYPE_CHECKING:
    from typing import Literal


def _written_and_read(
    snapshot: GraphSnapshot, suffix: str, form: Literal["ours", "original"] = "ours"
) -> GraphSnapshot:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"plan{suffix}"
        write_graph(path, snapshot, format=form)
        return read_graph(path)


def _check_same(one: GraphSnapshot, other: GraphSnapshot) -> None:
    assert one.graph == other.graph
    assert one.version == other.version
    assert one.decisions == other.decisions
    assert {node.id: one.node(node.id) for node in one.graph.nodes} == {
        node.id: other.node(node.id) for node in other.graph.nodes
    }
    # To Python, 1 and true are equal.
    assert json.dumps(graph_document(one), sort_keys=True) == json.dumps(graph_document(other), sort_keys=True)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@given(snapshot=snapshots())
def test_every_snapshot_is_the_same_after_it_was_written_and_read(suffix: str, snapshot: GraphSnapshot) -> None:
    _check_same(_written_and_read(snapshot, suffix), snapshot)


@given(snapshot=snapshots(null=False))
def test_every_snapshot_without_null_is_the_same_after_toml(snapshot: GraphSnapshot) -> None:
    _check_same(_written_and_read(snapshot, ".toml"), snapshot)


def _as_the_original_says(snapshot: GraphSnapshot) -> GraphSnapshot:
    """Return what is left of a snapshot in the original's form: all lines have ids, nothing runs, decisions are made again."""
    given = {edge.id for edge in snapshot.graph.edges} - {None}
    # As a run makes them up.
    ids = (made for number in range(len(given) + 1, 1000) if (made := f"edge-{number}") not in given)
    edges = [attrs.evolve(edge, id=next(ids)) if edge.id is None else edge for edge in snapshot.graph.edges]
    nodes = {
        node_id: attrs.evolve(
            node, state=NodeState.LOST, error=node.error or "it was running when the document was written"
        )
        if node.state is NodeState.RUNNING
        else node
        for node_id, node in snapshot.nodes.items()
    }
    return GraphSnapshot(attrs.evolve(snapshot.graph, edges=edges), snapshot.version, nodes)


@given(snapshot=snapshots())
def test_every_snapshot_is_the_same_after_the_original_s_form(snapshot: GraphSnapshot) -> None:
    _check_same(_written_and_read(snapshot, ".json", "original"), _as_the_original_says(snapshot))


@given(snapshot=snapshots())
def test_writing_the_original_s_form_again_changes_nothing(snapshot: GraphSnapshot) -> None:
    first = graph_document(read_graph(graph_document(snapshot, format="original")), format="original")
    assert graph_document(read_graph(first), format="original") == first


def test_infinite_timeout_and_times_are_read_again() -> None:
    when = datetime(2026, 1, 31, 12, tzinfo=UTC)
    snapshot = GraphSnapshot(
        Graph([Node("a", "x", timeout=float("inf"))]), nodes={"a": NodeResult(NodeState.COMPLETED, 1, started=when)}
    )
    for suffix in (".json", ".yaml", ".yml", ".toml"):
        _check_same(_written_and_read(snapshot, suffix), snapshot)
