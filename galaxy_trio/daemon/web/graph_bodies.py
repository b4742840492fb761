"""The JSON of graphs that clients send and receive."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, cast

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio.daemon.store.graph_records import short_graph
from galaxy_trio.daemon.web.bodies import MAX_PROBLEMS, BadRequest, parse_document
from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import graph_document, read_graph
from galaxy_trio.graph.files.edit_reader import GivenEdit, read_edit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.graph import Graph, GraphSnapshot
    from galaxy_trio.messages import JSON

FORMATS: Final = ("ours", "original")
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
        read = partial(read_graph, given, reset=True)
        return (await trio.to_thread.run_sync(read, limiter=_threads.get())).graph
    except GraphFileError as error:
        raise InvalidGraph(error.problems or [str(error)]) from None


async def parse_edit(body: bytes) -> GivenEdit:
    """Parse the body of ``PATCH /graphs/{id}``.

    Raises:
        BadRequest: The body is not a JSON object.
        InvalidGraph: It is not an edit.
    """
    document = await parse_document(body)
    if not isinstance(document, dict):
        raise BadRequest('the body must be an edit such as {"version": 3, "remove": ["fetch"]}')
    problems: list[str] = []
    read = partial(read_edit, cast("object", document), problems, MAX_PROBLEMS)
    edit = await trio.to_thread.run_sync(read, limiter=_threads.get())
    if problems:
        raise InvalidGraph(problems)
    return edit


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
