"""Responses that show a whole graph, of which few large ones are in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import Response

from galaxy_trio.daemon.refusals import DaemonBusy
from galaxy_trio.daemon.web.graph_bodies import whole_graph, written

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

    from galaxy_trio.daemon.store.graph_store import GraphStore

_MAX_TOGETHER: Final = 2
"""The graphs that are read from disk and written as JSON at the same time: their objects take several times as much memory as the JSON."""
_MAX_SMALL: Final = 2**18
"""Bytes of the largest document that is not large: each connection may have one in memory."""
_MAX_LARGE: Final = 4
"""The number of large documents that are in memory, each until its client has read it."""
_WAIT: Final = 30.0
"""Maximum seconds to wait until another one may be in memory."""
_PIECE: Final = 2**18
"""Bytes of a document that are sent in one piece: a client that does not read a piece in time is disconnected."""


class GraphDocuments:
    """The documents of graphs that clients read: small ones, and a few large ones.

    A small graph does not wait until clients have read others.
    """

    def __init__(self, stored: GraphStore) -> None:
        self._stored = stored
        self._turns = trio.CapacityLimiter(_MAX_TOGETHER)
        self._large = trio.CapacityLimiter(_MAX_LARGE)

    @asynccontextmanager
    async def open(self, graph_id: str, form: str | None) -> AsyncGenerator[bytes]:
        """Have the document of a graph in memory inside the block, which sends it.

        Args:
            graph_id: The graph.
            form: The form of a file, with the results of the nodes; `None` for the graph as the daemon shows it.

        Raises:
            NoSuchGraph: There is no such graph.
            GraphTooLarge: The results have too many bytes together.
            InvalidGraph: The original's form cannot express it.
            DaemonBusy: Clients have been reading other large graphs for too long.
        """
        # Some turn out to be large when they are written, and are written again in a place for one.
        is_large = (await self._stored.existing(graph_id)).size > _MAX_SMALL
        while True:
            async with AsyncExitStack() as stack:
                if is_large:
                    await self._take_place(stack)
                async with self._turns:
                    document = await self._read(graph_id, form)
                if is_large or len(document) <= _MAX_SMALL:
                    yield document
                    return
            del document
            is_large = True

    async def _take_place(self, stack: AsyncExitStack) -> None:
        with trio.move_on_after(_WAIT) as waiting:
            await stack.enter_async_context(self._large)
        if waiting.cancelled_caught:
            raise DaemonBusy("clients are reading other large graphs, and take all places for them: retry later")

    async def _read(self, graph_id: str, form: str | None) -> bytes:
        record, snapshot = await self._stored.whole(graph_id, with_results=form is not None)
        return await (whole_graph(record, snapshot) if form is None else written(snapshot, form))


class GraphResponse(Response):
    """Shows a graph. It is read when the response begins, and is in memory until the response has been sent."""

    media_type = "application/json"

    def __init__(self, documents: GraphDocuments, graph_id: str, form: str | None) -> None:
        super().__init__()
        self._documents = documents
        self._graph_id = graph_id
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as ASGI calls it
        """Send the response."""
        async with self._documents.open(self._graph_id, self._form) as document:
            self.headers["Content-Length"] = str(len(document))
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(document), _PIECE):
                piece = document[start : start + _PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
