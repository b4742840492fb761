"""The JSON of graphs that clients send and receive."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal, cast

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._config.reader import member_path
from galaxy_trio.daemon.graph_limits import check_requirements, requirement_problems
from galaxy_trio.daemon.store.graph_records import short_graph
from galaxy_trio.daemon.web.bodies import MAX_PROBLEMS, BadRequest, parse_document
from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import graph_document, read_graph
from galaxy_trio.graph.files.edit_reader import GivenEdit, read_edit
from galaxy_trio.graph.files.reading import is_original

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.graph import Graph, GraphSnapshot, Node
    from galaxy_trio.messages import JSON

FORMATS: Final = ("ours", "original")
_MAX_LISTED: Final = 500
"""The number of problems with what nodes require that are listed."""
_OUR_NAMES: Final = {name: name for name in ("device", "os", "capabilities")}
_NAMES_OF_THE_ORIGINAL: Final = {
    "device": "target_device_id",
    "os": "task_data.galaxy_trio.os",
    "capabilities": "task_data.galaxy_trio.capabilities",
}
# A large graph takes a second.
_threads: Final = ThreadLimit("reading and writing graphs", 2)


class InvalidGraph(Exception):
    """A document is no graph, or no edit of one. The message names its problems, the first 20 if there are more.

    Attributes:
        problems: All problems that were found, each with its path in the document.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("; ".join(self.problems[:MAX_PROBLEMS]))


async def parse_graph(body: bytes) -> Graph:
    """Parse the body of ``POST /graphs``: this package's form of a graph, or one of the original's. States and results are left out.

    Raises:
        BadRequest: The body is not a JSON object.
        InvalidGraph: It is not a graph.
    """
    document = await parse_document(body)
    if not isinstance(document, dict):
        raise BadRequest(
            'the body must be a graph such as {"nodes": [{"id": "fetch", "request": "Fetch the report"}], "edges": []}'
        )
    given = cast("dict[str, JSON]", document)
    try:
        return await trio.to_thread.run_sync(_read_graph, given, limiter=_threads.get())
    except GraphFileError as error:
        raise InvalidGraph(error.problems or [str(error)]) from None


def _read_graph(document: dict[str, JSON]) -> Graph:
    graph = read_graph(document, reset=True).graph
    key, names = ("tasks", _NAMES_OF_THE_ORIGINAL) if is_original(document) else ("nodes", _OUR_NAMES)
    given = document.get(key)
    # A list, or an object of nodes by their ids. The nodes are in its order.
    paths = [member_path(key, name) for name in given] if isinstance(given, dict) else _paths(key, len(graph.nodes))
    _check_nodes(zip(paths, graph.nodes, strict=True), names)
    check_requirements(graph.nodes, key)
    return graph


def _read_edit(document: object) -> GivenEdit:
    problems: list[str] = []
    edit = read_edit(document, problems, MAX_PROBLEMS)
    if problems:
        raise InvalidGraph(problems)
    added, replaced = _paths("add", len(edit.add)), _paths("replace", len(edit.replace))
    _check_nodes(zip([*added, *replaced], [*edit.add, *edit.replace], strict=True), _OUR_NAMES)
    return edit


def _paths(key: str, length: int) -> list[str]:
    return [f"{key}[{index}]" for index in range(length)]


def _check_nodes(nodes: Iterable[tuple[str, Node]], names: Mapping[str, str]) -> None:
    problems = [
        f"{path}.{names[name]}: {problem}" for path, node in nodes for name, problem in requirement_problems(node)
    ]
    if problems:
        raise InvalidGraph(problems[:_MAX_LISTED])


async def parse_edit(body: bytes) -> GivenEdit:
    """Parse the body of ``PATCH /graphs/{id}``.

    Raises:
        BadRequest: The body is not a JSON object.
        InvalidGraph: It is not an edit.
    """
    document = await parse_document(body)
    if not isinstance(document, dict):
        raise BadRequest('the body must be an edit such as {"version": 3, "remove": ["fetch"]}')
    return await trio.to_thread.run_sync(_read_edit, cast("object", document), limiter=_threads.get())


async def whole_graph(record: GraphRecord, snapshot: GraphSnapshot) -> bytes:
    """Represent a graph with its nodes, their states, and its edges as JSON."""
    short = json.dumps(short_graph(record)).encode()
    return short[:-1] + b',"graph":' + await written(snapshot, "ours") + b"}"


async def written(snapshot: GraphSnapshot, form: str) -> bytes:
    """A graph as a document that can be read again, as JSON.

    Raises:
        InvalidGraph: The original's form cannot express it.
    """
    chosen: Literal["ours", "original"] = "original" if form == "original" else "ours"

    def write() -> bytes:
        return json.dumps(graph_document(snapshot, format=chosen), ensure_ascii=False).encode()

    try:
        return await trio.to_thread.run_sync(write, limiter=_threads.get())
    except GraphFileError as error:
        raise InvalidGraph(error.problems or [str(error)]) from None
