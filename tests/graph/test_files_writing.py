"""Graphs are written to files as a whole, or not at all."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Literal, Self, cast

import pytest

from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphSnapshot,
    Node,
    NodeResult,
    When,
    graph_document,
    read_graph,
    write_graph,
)
from galaxy_trio.graph.files.texts import MAX_SIZES

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

GRAPH = Graph([Node("a", "x"), Node("b", "y")], [Edge("a", "b")])


def refusal(
    path: str | Path, graph: Graph | GraphSnapshot = GRAPH, form: Literal["ours", "original"] = "ours"
) -> GraphFileError:
    with pytest.raises(GraphFileError) as caught:
        write_graph(path, graph, format=form)
    return caught.value


def test_json_has_a_line_for_each_node_and_edge(tmp_path: Path) -> None:
    write_graph(tmp_path / "plan.json", GRAPH)
    assert (tmp_path / "plan.json").read_text("utf-8") == (
        '{\n  "nodes": [\n    {"id": "a", "request": "x"},\n    {"id": "b", "request": "y"}\n  ],\n'
        '  "edges": [\n    {"source": "a", "target": "b"}\n  ]\n}\n'
    )


def test_defaults_are_left_out() -> None:
    assert graph_document(GraphSnapshot(GRAPH, nodes={"a": NodeResult()})) == {
        "nodes": [{"id": "a", "request": "x"}, {"id": "b", "request": "y"}],
        "edges": [{"source": "a", "target": "b"}],
    }


def test_text_in_any_language_is_written_as_it_is(tmp_path: Path) -> None:
    graph = Graph([Node("a", "Übersetze 猫")])
    for suffix in (".json", ".yaml", ".toml"):
        write_graph(tmp_path / f"plan{suffix}", graph)
        assert "Übersetze 猫" in (tmp_path / f"plan{suffix}").read_text("utf-8")


def test_yaml_has_no_aliases_for_data_that_occurs_twice(tmp_path: Path) -> None:
    shared: dict[str, JSON] = {"k": [1]}
    write_graph(tmp_path / "plan.yaml", Graph([Node(name, "x", metadata=shared) for name in "ab"]))
    assert "&" not in (tmp_path / "plan.yaml").read_text("utf-8")


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_yaml_keeps_the_line_breaks_of_unicode(tmp_path: Path, character: str) -> None:
    graph = Graph([Node("a", f"x{character}y")])
    write_graph(tmp_path / "plan.yaml", graph)
    assert read_graph(tmp_path / "plan.yaml").graph == graph


def test_what_no_file_can_hold_is_reported_together_with_its_paths() -> None:
    graph = Graph(
        [
            Node("a", "x", where=bool, metadata={"n": float("nan"), "t": cast("JSON", (1,))}),
            Node("b", "\ud800", where=bool),
        ],
        [Edge("a", "b", When.CONDITION, condition=Condition("", "eq", float("inf")))],
    )
    with pytest.raises(GraphFileError, match="the graph is wrong at 6 places") as caught:
        graph_document(graph)
    assert list(caught.value.problems) == [
        "nodes[0].where: a function cannot be written: give node 'a' a device, os or capabilities instead, or remove it",
        "nodes[1].where: a function cannot be written: give node 'b' a device, os or capabilities instead, or remove it",
        "nodes[0].metadata.n: a number that JSON does not have: infinite, or none",
        "nodes[0].metadata.t: a tuple is a value that JSON does not have: write it as text, in quotes",
        "nodes[1].request: contains a lone surrogate, which cannot be sent",
        "edges[0].condition.value: a number that JSON does not have: infinite, or none",
    ]
    with pytest.raises(GraphFileError) as caught:
        graph_document(graph, format="original")
    assert caught.value.problems[0].startswith("tasks.a.where: a function cannot be written")


def test_toml_without_null_is_written_and_with_null_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    write_graph(path, GRAPH)
    assert read_graph(path).graph == GRAPH
    graph = Graph([Node("a", "x", metadata={"k": [1, None]})])
    assert list(refusal(path, graph).problems) == [
        "nodes[0].metadata.k[1]: TOML has no null: leave it out, or write the graph as JSON or YAML"
    ]


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("plan.txt", "ours", "its name must end with .json, .yaml, .yml, .toml"),
        ("plan", "ours", "its name must end with .json, .yaml, .yml, .toml"),
        ("plan.yaml", "original", "the original reads JSON only, so its name must end with .json"),
        ("nowhere/plan.json", "ours", "No such file or directory"),
        ("folder.json", "ours", "it is not a file"),
        ("pipe.json", "ours", "it is not a file"),
        ("a\0b.json", "ours", "no file can have this name"),
    ],
)
def test_name_that_cannot_be_written_says_why(
    tmp_path: Path, name: str, form: Literal["ours", "original"], expected: str
) -> None:
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    there = set(tmp_path.iterdir())
    assert str(refusal(f"{tmp_path}/{name}", form=form)).endswith(f"cannot be written: {expected}")
    assert set(tmp_path.iterdir()) == there


def test_unknown_form_is_refused() -> None:
    with pytest.raises(GraphFileError, match="the format of a graph is 'ours' or 'original', not 'theirs'"):
        graph_document(GRAPH, format="theirs")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old", "utf-8")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        monkeypatch.setattr("builtins.open", _Full)
    else:
        monkeypatch.setattr(f"galaxy_trio.graph.files.replacing.os.{call}", fail)
    error = refusal(path)
    monkeypatch.undo()
    assert str(error) == f"the graph {path} cannot be written: No space left on device"
    assert isinstance(error.__cause__, OSError)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


class _Full:
    """A file on a disk that is full after the first bytes."""

    def __init__(self, path: Path, mode: str) -> None:
        assert mode == "xb"
        self._file = path.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old", "utf-8")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("galaxy_trio.graph.files.replacing.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_graph(path, GRAPH)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_file_keeps_its_permissions_and_a_link_to_it_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "plan.json", tmp_path / "link.json"
    path.write_text("old", "utf-8")
    path.chmod(0o640)
    link.symlink_to(path)
    write_graph(link, GRAPH)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert read_graph(path).graph == GRAPH


def test_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_graph(tmp_path / "plan.json", GRAPH)
    (tmp_path / "other").touch()
    assert (tmp_path / "plan.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_name_as_long_as_names_may_be_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 250}.json"
    write_graph(path, GRAPH)
    write_graph(path, GRAPH)
    assert read_graph(path).graph == GRAPH


def test_file_that_would_be_too_large_to_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    monkeypatch.setitem(MAX_SIZES, ".json", 2**20)
    expected = f"the graph {path} cannot be written: it has 1,048,643 bytes, and at most 1 MiB are read again"
    assert str(refusal(path, Graph([Node("a", "x" * 2**20)]))) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "library"), [(".yaml", "PyYAML"), (".toml", "tomli-w")])
def test_format_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, library: str
) -> None:
    monkeypatch.delitem(sys.modules, "galaxy_trio.graph.files.yaml_writer", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    expected = f'{library} is not installed: pip install "galaxy_trio[cli]", or write it as JSON'
    assert str(refusal(tmp_path / f"plan{suffix}")).endswith(expected)


@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
def test_data_that_is_nested_too_deeply_for_a_format_is_refused(tmp_path: Path, suffix: str) -> None:
    deep: JSON = "x"
    for _ in range(500):
        deep = [deep]
    graph = Graph([Node("a", "x", metadata={"k": deep})])
    write_graph(tmp_path / "plan.json", graph)
    assert read_graph(tmp_path / "plan.json").graph == graph
    assert str(refusal(tmp_path / f"plan{suffix}", graph)).endswith("cannot be written: it is nested too deeply")


def test_document_is_json() -> None:
    document = graph_document(GRAPH, format="original")
    assert json.loads(json.dumps(document)) == document
