"""The handlers of the operations on graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import JSONResponse

from galaxy_trio.daemon.store.graph_records import short_graph
from galaxy_trio.daemon.task_limits import MAX_NAME
from galaxy_trio.daemon.web.bodies import BadRequest
from galaxy_trio.daemon.web.graph_bodies import FORMATS, parse_edit, parse_graph
from galaxy_trio.daemon.web.graph_responses import GraphDocuments, GraphResponse
from galaxy_trio.daemon.web.query import page_size, query_of
from galaxy_trio.graph import GraphState

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from galaxy_trio.daemon.graphs import Graphs
    from galaxy_trio.daemon.store.store import Store

KEY_HEADER: Final = "Idempotency-Key"


class GraphHandlers:
    """The handlers of the operations on graphs."""

    def __init__(self, store: Store, graphs: Graphs) -> None:
        self._stored = store.graphs
        self._graphs = graphs
        self._documents = GraphDocuments(store.graphs)

    async def submit_graph(self, request: Request) -> Response:
        """Accept a graph; it is on disk when the response is sent."""
        key = request.headers.get(KEY_HEADER)
        if key is not None and not 0 < len(key) <= MAX_NAME:
            raise BadRequest(f"{KEY_HEADER}: expected a text of 1 to {MAX_NAME} characters")
        record, is_new = await self._graphs.submit(await parse_graph(await request.body()), key)
        return JSONResponse(short_graph(record), 202 if is_new else 200, {"Location": f"/graphs/{record.id}"})

    async def list_graphs(self, request: Request) -> Response:
        """A page of graphs, the newest first."""
        query = query_of(request, "state", "limit", "before")
        state = query.get("state")
        if state is not None and state not in list(GraphState):
            raise BadRequest(f"state: expected one of {', '.join(GraphState)}")
        limit = page_size(query.get("limit", "100"))
        records = await self._stored.page(
            state=None if state is None else GraphState(state), limit=limit, before=query.get("before")
        )
        following = records[-1].id if len(records) == limit else None
        return JSONResponse({"graphs": [short_graph(record) for record in records], "before": following})

    async def show_graph(self, request: Request) -> Response:
        """A graph with the states of its nodes; with ``format``, as a file that has their results as well."""
        form = query_of(request, "format").get("format")
        if form is not None and form not in FORMATS:
            raise BadRequest(f"format: expected one of {', '.join(FORMATS)}")
        await trio.lowlevel.checkpoint()
        return GraphResponse(self._documents, request.path_params["id"], form)

    async def edit_graph(self, request: Request) -> Response:
        """Change the nodes and edges of a graph."""
        edit = await parse_edit(await request.body())
        record = await self._graphs.edit(request.path_params["id"], edit)
        return JSONResponse(short_graph(record))

    async def cancel_graph(self, request: Request) -> Response:
        """Cancel a graph: its nodes that have not started, and those that run."""
        record = await self._graphs.cancel(request.path_params["id"])
        return JSONResponse(short_graph(record), 202 if record.state is GraphState.RUNNING else 200)

    async def cancel_node(self, request: Request) -> Response:
        """Cancel a node of a graph."""
        record = await self._graphs.cancel(request.path_params["id"], request.path_params["node"])
        return JSONResponse(short_graph(record))

    async def retry_node(self, request: Request) -> Response:
        """Run a node again that failed, was lost or was cancelled."""
        record = await self._graphs.retry(request.path_params["id"], request.path_params["node"])
        return JSONResponse(short_graph(record), 202)
