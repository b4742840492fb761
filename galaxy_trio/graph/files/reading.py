"""Reads graphs from files, texts and data, in this package's own form and in the original's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._config.files import read_named_text
from galaxy_trio._config.reader import ObjectReader, check_problems
from galaxy_trio._config.text import MAX_TEXT
from galaxy_trio.errors import ConfigError, GraphFileError
from galaxy_trio.graph.files.json_values import find_unfit_values
from galaxy_trio.graph.files.original_reader import read_original_graph
from galaxy_trio.graph.files.our_reader import read_our_graph
from galaxy_trio.graph.files.texts import MAX_SIZES, is_text, parse_text
from galaxy_trio.graph.model import Graph
from galaxy_trio.graph.snapshot import GraphSnapshot

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_WHAT: Final = "the graph"
_OF_THE_ORIGINAL: Final = ("tasks", "constellation_id")


def read_graph(
    source: str | os.PathLike[str] | Mapping[str, JSON],
    *,
    reset: bool = False,
    conditions: Mapping[str, Callable[[JSON], bool]] | None = None,
) -> GraphSnapshot:
    """Read a graph, and what is known of its nodes, from a file, a text or data.

    Both this package's form and the two forms of the original are read; a document with ``tasks`` is the original's. A file is JSON or
    TOML if it has that suffix, otherwise YAML, which needs PyYAML. The reference has the keys. What the original's form has and this
    package does not is in the member ``original`` of the metadata of the graph, its nodes and its edges, and `write_graph` writes it
    back. This blocks while it reads; call it in a thread if other tasks run.

    Args:
        source: A path, a text or data. A string that begins with ``{``, perhaps after blanks, or contains a line break is the text itself:
            JSON if it begins so, otherwise TOML or YAML.
        reset: Forget the states and results of nodes, so that all of them run again.
        conditions: The functions of conditional edges, by the edges' ids. They take precedence over conditions in the document, and ids
            that the graph does not have are ignored. An exception of one ends the block of the graph.

    Raises:
        GraphFileError: The document cannot be read, or is invalid. Names every problem with its path in the document, and a cycle by its
            nodes.
    """
    try:
        document, shown = load_document(source)
        problems: list[str] = []
        snapshot = _read(document, problems, conditions or {})
        check_problems(shown, problems)
    except ConfigError as error:
        raise GraphFileError(str(error), problems=error.problems) from error.__cause__
    return GraphSnapshot(snapshot.graph, snapshot.version) if reset else snapshot


def is_original(document: Mapping[str, object]) -> bool:
    """Whether a document is in one of the original's forms."""
    return "nodes" not in document and any(key in document for key in _OF_THE_ORIGINAL)


def load_document(source: str | os.PathLike[str] | Mapping[str, JSON]) -> tuple[object, str]:
    """Return the document, and the subject of errors about it."""
    if isinstance(source, Mapping):
        return dict(source), _WHAT
    if isinstance(source, str) and is_text(source):
        return parse_text(source, "", _WHAT), _WHAT
    suffix = Path(source).suffix
    text = read_named_text(source, _WHAT, MAX_SIZES.get(suffix.lower(), MAX_TEXT))
    shown = f"{_WHAT} {os.fspath(source)}"
    return parse_text(text, suffix, shown), shown


def _read(document: object, problems: list[str], conditions: Mapping[str, Callable[[JSON], bool]]) -> GraphSnapshot:
    """Read a document. If there are problems, the snapshot is empty."""
    if not isinstance(document, dict):
        ObjectReader(document, "", problems)
        return GraphSnapshot(Graph())
    members = cast("dict[str, object]", document)
    unfit = find_unfit_values(members)
    read = read_original_graph if is_original(members) else read_our_graph
    snapshot = read(members, problems, conditions)
    # A value that is wrong in its place is reported once.
    places = {problem.partition(": ")[0] for problem in problems}
    problems += [problem for problem in unfit if problem.partition(": ")[0] not in places]
    return snapshot
