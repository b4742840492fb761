"""Damaged documents are refused with the paths of their problems, or are graphs: no other exception, and none that cannot be written."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from hypothesis import strategies as st

from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import Edge, Graph, GraphSnapshot, Node, graph_document, read_graph
from galaxy_trio.graph.files.texts import write_text
from galaxy_trio.graph.state_machine import ENDED, UNSTARTED, NodeState
from tests.graph.support.snapshots import json_values, snapshots, texts
from tests.support.fuzzing import fuzz

if TYPE_CHECKING:
    from collections.abc import Iterator

    from galaxy_trio.messages import JSON

_SAMPLES: Final = [
    cast("dict[str, JSON]", json.loads(path.read_text("utf-8")))
    for path in sorted((Path(__file__).parent / "samples").glob("*.json"))
]
_VALUES: Final = cast(
    "list[object]",
    [None, True, -1, 10**400, math.nan, math.inf, "", "\ud800", "x" * 300, "function", "condition", "completed", b"x"],
)
_CONTAINERS: Final = cast("list[object]", [[], {}, [[]], {"galaxy_trio": 1}, {"original": 1}, {1: 2}, ()])
_ODD: Final = (*'"{}[]:,=\n\r\0\ud800', "- ", "&a ", "*a", "<<: *a", "!!x ", "\\u", "1e999", "nan")


def _check(source: str | dict[str, JSON]) -> None:
    """Read a document that may be anything."""
    refusal: GraphFileError | None = None
    try:
        snapshot = read_graph(source, conditions={"line_001": bool})
    except GraphFileError as error:
        refusal = error
    else:
        _check_valid(snapshot)
        return
    # Only a text can be so bad that there are no paths in it.
    assert refusal.problems or isinstance(source, str)
    assert str(refusal).startswith("the graph ")
    for problem in refusal.problems:
        path, colon, what = problem.partition(": ")
        assert path
        assert colon
        assert what


def _check_valid(snapshot: GraphSnapshot) -> None:
    """Check that a snapshot is one of a graph that may have run, and can be written."""
    for edge in snapshot.graph.edges:
        holds = snapshot.decisions.get(edge.id or "")
        source, target = snapshot.node(edge.source), snapshot.node(edge.target)
        # What ran before its source was retried keeps the edge, also if it is retried itself.
        may_be_decided = source.state in ENDED or target.state not in UNSTARTED | {NodeState.SKIPPED} or target.attempt
        assert holds is None or may_be_decided
        assert holds is not False or target.state not in UNSTARTED
    functions = {edge.id: edge.condition for edge in snapshot.graph.edges if callable(edge.condition)}
    assert (
        read_graph(graph_document(snapshot), conditions={str(key): bool for key in functions}).graph == snapshot.graph
    )
    parts: list[Graph | Node | Edge] = [snapshot.graph, *snapshot.graph.nodes, *snapshot.graph.edges]
    if not any("galaxy_trio" in part.metadata for part in parts):
        graph_document(snapshot, format="original")


def _containers(value: object) -> Iterator[dict[object, object] | list[object]]:
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        yield members
        for member in members.values():
            yield from _containers(member)
    elif isinstance(value, list):
        items = cast("list[object]", value)
        yield items
        for item in items:
            yield from _containers(item)


def _damage(draw: st.DrawFn, document: dict[str, JSON]) -> None:
    """Change, remove, add, rename or repeat a member or an item."""
    containers = list(_containers(document))
    others = st.sampled_from(cast("list[object]", containers)) | st.sampled_from([*_VALUES, *_CONTAINERS])
    value = copy.deepcopy(draw(others | json_values()))
    container = draw(st.sampled_from(containers))
    what = draw(st.sampled_from(["change", "remove", "add", "move"]))
    if isinstance(container, dict):
        keys = list(container)
        key = draw(st.sampled_from(keys)) if keys and what != "add" else draw(texts)
        old = container.pop(key, None) if what in ("remove", "move") else None
        if what != "remove":
            container[draw(texts) if what == "move" else key] = old if what == "move" else value
    else:
        index = draw(st.integers(0, len(container)))
        container[index : index + (what != "add")] = [value] if what in ("change", "add") else []
        if what == "move":
            container.reverse()


@st.composite
def _documents(draw: st.DrawFn) -> dict[str, JSON]:
    """Make a damaged document of each form."""
    if draw(st.booleans()):
        document = copy.deepcopy(draw(st.sampled_from(_SAMPLES)))
    else:
        form = draw(st.sampled_from(["ours", "original"]))
        document = graph_document(draw(snapshots()), format="ours" if form == "ours" else "original")
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        _damage(draw, document)
    return document


@st.composite
def _texts(draw: st.DrawFn) -> str:
    """Make a damaged text in each format."""
    suffix = draw(st.sampled_from([".json", ".yaml", ".toml"]))
    text = write_text(graph_document(draw(snapshots(null=False))), suffix, "the graph")
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(text)))
        end = draw(st.integers(begin, min(begin + 20, len(text))))
        odd = st.sampled_from(_ODD)
        text = text[:begin] + draw(odd | texts) + text[end:]
    return text


@fuzz(300, document=_documents())
def test_damaged_document_is_refused_with_paths_or_is_a_graph(document: dict[str, JSON]) -> None:
    _check(document)


@fuzz(200, text=_texts())
def test_damaged_text_is_refused_or_is_a_graph(text: str) -> None:
    _check(text + "\n")


@fuzz(100, value=json_values())
def test_any_data_is_refused_with_paths_or_is_a_graph(value: JSON) -> None:
    _check({"nodes": value})
    _check({"tasks": value, "dependencies": value})
    _check({"nodes": [value], "edges": [value], "results": value})
