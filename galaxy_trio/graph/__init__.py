"""Task graphs: plans over a constellation, edited while they run."""

from galaxy_trio._exports import set_module
from galaxy_trio.graph.conditions import Comparison, Condition
from galaxy_trio.graph.edit import GraphEdit
from galaxy_trio.graph.events import (
    GraphEdited,
    GraphEnded,
    GraphEvent,
    NodeEnded,
    NodeEvent,
    NodeReady,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    NodeWaiting,
)
from galaxy_trio.graph.files.reading import read_graph
from galaxy_trio.graph.files.writing import graph_document, write_graph
from galaxy_trio.graph.model import Edge, EdgeCondition, Graph, Node, When
from galaxy_trio.graph.node_requests import make_request
from galaxy_trio.graph.opening import open_graph
from galaxy_trio.graph.planning import Change, Planner
from galaxy_trio.graph.run import GraphRun
from galaxy_trio.graph.snapshot import GraphResult, GraphSnapshot, GraphState, GraphStatistics, NodeResult
from galaxy_trio.graph.state_machine import NodeState

__all__ = [
    "Change",
    "Comparison",
    "Condition",
    "Edge",
    "EdgeCondition",
    "Graph",
    "GraphEdit",
    "GraphEdited",
    "GraphEnded",
    "GraphEvent",
    "GraphResult",
    "GraphRun",
    "GraphSnapshot",
    "GraphState",
    "GraphStatistics",
    "Node",
    "NodeEnded",
    "NodeEvent",
    "NodeReady",
    "NodeResult",
    "NodeRetried",
    "NodeSkipped",
    "NodeStarted",
    "NodeState",
    "NodeWaiting",
    "Planner",
    "When",
    "graph_document",
    "make_request",
    "open_graph",
    "read_graph",
    "write_graph",
]

set_module(globals())
