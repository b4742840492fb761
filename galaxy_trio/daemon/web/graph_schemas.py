"""The JSON schemas of graphs in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio.graph import GraphState, NodeState

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_TEXT_OR_NULL: Final[JSON] = {"type": ["string", "null"]}
_TIME_OR_NULL: Final[JSON] = {"type": ["string", "null"], "format": "date-time"}
_OBJECTS: Final[dict[str, JSON]] = {"type": "array", "items": {"type": "object"}}

GRAPH_SCHEMAS: Final[dict[str, JSON]] = {
    "GraphState": {"type": "string", "enum": [state.value for state in GraphState]},
    "GraphDocument": {
        "type": "object",
        "description": (
            "A graph as a file: with `nodes` and `edges` in this package's form, with `tasks` in one of the original's; "
            "see the reference of graph files."
        ),
        "properties": {"nodes": _OBJECTS, "edges": _OBJECTS, "name": {"type": ["string", "null"]}},
    },
    "Graph": {
        "type": "object",
        "required": ["id", "name", "state", "version", "nodes", "created", "ended"],
        "properties": {
            "id": {"type": "string"},
            "number": {"type": "integer", "description": "Its place in the order of acceptance."},
            "name": _TEXT_OR_NULL,
            "state": {"$ref": "#/components/schemas/GraphState"},
            "version": {"type": "integer", "description": "The number of its edits."},
            "nodes": {
                "type": "object",
                "description": (
                    f"The number of its nodes in each state: {', '.join(NodeState)}. "
                    "In events, those that run count as ready: their starts are events of their tasks."
                ),
                "additionalProperties": {"type": "integer"},
            },
            "created": {"type": "string", "format": "date-time"},
            "ended": _TIME_OR_NULL,
            "cancelled": _TIME_OR_NULL,
            "idempotency_key": _TEXT_OR_NULL,
            "graph": {
                "$ref": "#/components/schemas/GraphDocument",
                "description": "Its nodes with their states, and its edges. Only `GET /graphs/{id}` returns it.",
            },
        },
    },
    "Graphs": {
        "type": "object",
        "required": ["graphs", "before"],
        "properties": {
            "graphs": {"type": "array", "items": {"$ref": "#/components/schemas/Graph"}},
            "before": _TEXT_OR_NULL,
        },
    },
    "GraphEdit": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "version": {
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "The version that the graph must have; without it, any.",
            },
            "add": {**_OBJECTS, "description": "New nodes."},
            "replace": {**_OBJECTS, "description": "Nodes in place of those with the same ids."},
            "remove": {"type": "array", "items": {"type": "string"}, "description": "The ids of nodes that go."},
            "connect": {**_OBJECTS, "description": "New edges."},
            "disconnect": {
                "type": "array",
                "description": "Pairs of nodes whose edges go.",
                "items": {
                    "type": "object",
                    "required": ["source", "target"],
                    "additionalProperties": False,
                    "properties": {"source": {"type": "string"}, "target": {"type": "string"}},
                },
            },
        },
    },
}
