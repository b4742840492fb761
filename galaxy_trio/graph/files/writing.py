"""Writes graphs to files and as data, in this package's own form and in the original's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from galaxy_trio._config.files import can_name_a_file
from galaxy_trio._config.reader import check_problems
from galaxy_trio.errors import ConfigError, GraphFileError
from galaxy_trio.graph.files.json_values import find_unfit_values
from galaxy_trio.graph.files.original_writer import write_original_graph
from galaxy_trio.graph.files.our_writer import write_our_graph
from galaxy_trio.graph.files.replacing import replace_file
from galaxy_trio.graph.files.texts import MAX_SIZES, write_text
from galaxy_trio.graph.snapshot import GraphSnapshot

if TYPE_CHECKING:
    from galaxy_trio.graph.model import Graph
    from galaxy_trio.messages import JSON

_WHAT: Final = "the graph"
_NO_NULL: Final = "TOML has no null: leave it out, or write the graph as JSON or YAML"


def graph_document(graph: Graph | GraphSnapshot, *, format: Literal["ours", "original"] = "ours") -> dict[str, JSON]:
    """Return a graph, and what is known of its nodes, as data for JSON. `read_graph` reads it.

    A condition that is a function is written as the word ``function``, and its edge has an id, by which `read_graph` takes the function
    again.

    Args:
        graph: The graph, or a snapshot of one.
        format: This package's form, or the original's.

    Raises:
        GraphFileError: A node has a function `where`, or data is not JSON. Names every problem with its path in the document.
    """
    try:
        return _document(graph, format, _WHAT)
    except ConfigError as error:
        raise GraphFileError(str(error), problems=error.problems) from error.__cause__


def write_graph(
    path: str | os.PathLike[str], graph: Graph | GraphSnapshot, *, format: Literal["ours", "original"] = "ours"
) -> None:
    """Write a graph, and what is known of its nodes, to a file: the data of `graph_document`.

    The file is replaced as a whole: a failed write leaves the old one. This blocks until the file is on the disk; call it in a thread if
    other tasks run.

    Args:
        path: The file. Its suffix is the format: ``.json``; ``.yaml`` or ``.yml``, which need PyYAML; or ``.toml``, which needs tomli-w and
            has no null. The original reads JSON only.
        graph: The graph, or a snapshot of one.
        format: This package's form, or the original's.

    Raises:
        GraphFileError: The file cannot be written, or a part of the graph. Names every such part with its path in the document.
    """
    try:
        _write(path, graph, format)
    except ConfigError as error:
        raise GraphFileError(str(error), problems=error.problems) from error.__cause__


def _write(path: str | os.PathLike[str], graph: Graph | GraphSnapshot, form: str) -> None:
    name = os.fspath(path)
    shown = f"{_WHAT} {name}"
    suffix = Path(name).suffix.lower()
    if not can_name_a_file(name):
        raise ConfigError(f"{_WHAT} {name!r} cannot be written: no file can have this name")
    if suffix not in MAX_SIZES:
        raise ConfigError(f"{shown} cannot be written: its name must end with {', '.join(MAX_SIZES)}")
    if form == "original" and suffix != ".json":
        raise ConfigError(f"{shown} cannot be written: the original reads JSON only, so its name must end with .json")
    document = _document(graph, form, shown, without_null=_NO_NULL if suffix == ".toml" else None)
    data = write_text(document, suffix, shown).encode()
    if len(data) > MAX_SIZES[suffix]:
        raise ConfigError(
            f"{shown} cannot be written: it has {len(data):,} bytes, and at most {MAX_SIZES[suffix] // 2**20} MiB are read again"
        )
    try:
        replace_file(path, data)
    except OSError as error:
        raise ConfigError(f"{shown} cannot be written: {error.strerror or error}") from error


def _document(
    graph: Graph | GraphSnapshot, form: str, shown: str, *, without_null: str | None = None
) -> dict[str, JSON]:
    writers = {"ours": write_our_graph, "original": write_original_graph}
    if form not in writers:
        raise ConfigError(f"the format of a graph is {' or '.join(map(repr, writers))}, not {form!r}")
    problems: list[str] = []
    document = writers[form](graph if isinstance(graph, GraphSnapshot) else GraphSnapshot(graph), problems)
    problems += find_unfit_values(document, without_null=without_null)
    check_problems(shown, problems)
    return document
