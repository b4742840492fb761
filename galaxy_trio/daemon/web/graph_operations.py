"""The operations on graphs in the table of the HTTP interface's operations."""

from __future__ import annotations

from typing import Final

from galaxy_trio.daemon.task_limits import MAX_NAME
from galaxy_trio.daemon.web.graph_bodies import FORMATS
from galaxy_trio.daemon.web.graph_handlers import KEY_HEADER
from galaxy_trio.daemon.web.handlers import Handlers
from galaxy_trio.daemon.web.openapi import Operation, answer, parameter
from galaxy_trio.daemon.web.query import MAX_PAGE
from galaxy_trio.daemon.web.schemas import ref

_GRAPH_ID: Final = parameter("id", "The graph's id.", where="path")
_NODE_ID: Final = parameter("node", "The node's id.", where="path")
_GRAPH: Final = ref("Graph")
_BAD_REQUEST: Final = answer("The request is invalid.")
_NO_GRAPH: Final = answer("There is no such graph.")
_NO_NODE: Final = answer("There is no such graph, or it has no such node.")
_NOT_WRITTEN: Final = answer("The database failed, and nothing was changed.")
_BUSY: Final = answer("Too many tasks are queued, or the daemon is stopping.")
_TOO_LARGE: Final = answer("The body, or the graph, is too large.")

# fmt: off
GRAPH_OPERATIONS: Final = (
    Operation(
        "GET", "/graphs", Handlers.list_graphs, "List graphs without their nodes, the newest first.",
        {200: answer("A page of graphs.", ref("Graphs")), 400: _BAD_REQUEST, 404: answer("The graph `before` does not exist any more.")},
        parameters=(
            parameter("state", "Only graphs in this state.", ref("GraphState")),
            parameter("limit", "The maximum number; 100 by default.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
            parameter("before", "Only graphs older than this one: the previous page's `before`."),
        ),
    ),
    Operation(
        "POST", "/graphs", Handlers.submit_graph,
        "Submit a task graph in this package's form or in one of the original's. It is on disk when the response is sent. "
        "All its nodes are to run, whatever their states in it are.",
        {
            200: answer("It was submitted before, with this idempotency key.", _GRAPH),
            202: answer("It was accepted.", _GRAPH),
            400: _BAD_REQUEST,
            409: answer("The idempotency key belongs to another graph."),
            413: _TOO_LARGE,
            415: answer("The body is not declared as application/json."),
            422: answer("It is not a graph; each problem has its path."),
            503: _BUSY,
            507: _NOT_WRITTEN,
        },
        parameters=(
            parameter(
                KEY_HEADER, "Submitting again with the same key returns the same graph.",
                {"type": "string", "minLength": 1, "maxLength": MAX_NAME}, where="header",
            ),
        ),
        body="GraphDocument",
    ),
    Operation(
        "GET", "/graphs/{id}", Handlers.show_graph,
        "Show a graph with its nodes and their states, or write it as a file with their results.",
        {
            200: answer("The graph.", {"anyOf": [_GRAPH, ref("GraphDocument")]}),
            400: _BAD_REQUEST,
            404: _NO_GRAPH,
            413: _TOO_LARGE,
            422: answer("The form cannot express it."),
            503: answer("Clients are reading other large graphs, and take all places for them."),
        },
        parameters=(
            _GRAPH_ID,
            parameter(
                "format", "Only the graph, as a file in this form, with the results of its nodes.",
                {"type": "string", "enum": list(FORMATS)},
            ),
        ),
    ),
    Operation(
        "PATCH", "/graphs/{id}", Handlers.edit_graph, "Change nodes that have not started, and edges to them: all of an edit, or nothing.",
        {
            200: answer("The graph after that.", _GRAPH),
            400: _BAD_REQUEST,
            404: _NO_NODE,
            409: answer("The graph has another version, which the answer has as `version`; or a node has started."),
            413: _TOO_LARGE,
            415: answer("The body is not declared as application/json."),
            422: answer("It is not an edit; each problem has its path. Or it is not possible, for example because of a cycle."),
            503: _BUSY,
            507: _NOT_WRITTEN,
        },
        parameters=(_GRAPH_ID,),
        body="GraphEdit",
    ),
    Operation(
        "DELETE", "/graphs/{id}", Handlers.cancel_graph,
        "Cancel a graph. Nodes that have not started never do; those that run are stopped.",
        {
            200: answer("The graph, which has ended.", _GRAPH),
            202: answer("Tasks are still being stopped.", _GRAPH),
            404: _NO_GRAPH,
            507: _NOT_WRITTEN,
        },
        parameters=(_GRAPH_ID,),
    ),
    Operation(
        "POST", "/graphs/{id}/nodes/{node}/cancel", Handlers.cancel_node, "Cancel a node of a graph.",
        {200: answer("The graph after that.", _GRAPH), 404: _NO_NODE, 507: _NOT_WRITTEN},
        parameters=(_GRAPH_ID, _NODE_ID),
    ),
    Operation(
        "POST", "/graphs/{id}/nodes/{node}/retry", Handlers.retry_node,
        "Run a node again that failed, was lost or was cancelled. Nodes that were skipped through it wait again.",
        {
            202: answer("The graph after that.", _GRAPH),
            404: _NO_NODE,
            409: answer("The node has another state, or one of its edges does not hold."),
            503: _BUSY,
            507: _NOT_WRITTEN,
        },
        parameters=(_GRAPH_ID, _NODE_ID),
    ),
)
# fmt: on
