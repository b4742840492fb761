"""Graphs as rows and back: what is stored of the nodes and edges as they were given."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
from sqlalchemy import bindparam, select

from galaxy_trio.daemon.store.graph_rows import StoredEdge
from galaxy_trio.daemon.store.schema import GRAPH_EDGES, GRAPH_NODES
from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph.conditions import Condition
from galaxy_trio.graph.files.reading import read_graph
from galaxy_trio.graph.files.writing import graph_document
from galaxy_trio.graph.model import Edge, Graph, Node, When

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

    from galaxy_trio.messages import JSON

_NODES: Final = (
    select(GRAPH_NODES.c.spec).where(GRAPH_NODES.c.graph == bindparam("of_graph")).order_by(GRAPH_NODES.c.number)
)
EDGES: Final = select(GRAPH_EDGES).where(GRAPH_EDGES.c.graph == bindparam("of_graph")).order_by(GRAPH_EDGES.c.number)
"""The rows of a graph's edges, in their order."""
_ENDS: Final = (Node("source", ""), Node("target", ""))


@attrs.frozen
class NewGraph:
    """A graph as it is written.

    Attributes:
        name: Its name.
        metadata: Its metadata as JSON.
        digest: A digest of all of it.
        size: Bytes of memory of its texts and data.
        nodes: The data of each node as JSON, by id.
        edges: The edges, each with its metadata as JSON.
    """

    name: str | None
    metadata: str
    digest: str
    size: int
    nodes: dict[str, str]
    edges: list[tuple[StoredEdge, str | None]]


def encode_graph(graph: Graph) -> NewGraph:
    """Prepare a graph for `add`. It takes long for a large one.

    Raises:
        GraphFileError: It has functions, or data that is not JSON.
    """
    document = checked_document(graph)
    return NewGraph(
        graph.name,
        json.dumps(document.get("metadata", {})),
        hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest(),
        graph._size,
        node_texts(graph, document),
        [stored_edge(edge, number) for number, edge in enumerate(graph._named_edges)],
    )


def checked_document(graph: Graph) -> dict[str, JSON]:
    """A graph as data for JSON.

    Raises:
        GraphFileError: It has functions, or data that is not JSON.
    """
    for edge in graph.edges:
        if edge.condition is not None and not isinstance(edge.condition, Condition):
            raise GraphFileError(f"{edge}: its condition is a function, which cannot be stored: give an object instead")
    return graph_document(graph)


def node_texts(graph: Graph, document: dict[str, JSON]) -> dict[str, str]:
    """The data of each node as JSON, by id."""
    nodes = cast("list[JSON]", document["nodes"])
    return {node.id: json.dumps(written) for node, written in zip(graph.nodes, nodes, strict=True)}


def check_additions(nodes: Iterable[Node], edges: Iterable[Edge]) -> dict[str, str]:
    """The data of new nodes as JSON, by id. New edges are checked with them.

    Raises:
        GraphFileError: They have functions, or data that is not JSON.
    """
    given = list(nodes)
    some = Graph(given)
    # The ends of the edges may be nodes that are there already.
    ends = [attrs.evolve(edge, source="source", target="target") for edge in edges]
    checked_document(Graph(_ENDS, ends))
    return node_texts(some, checked_document(some))


def stored_edge(edge: Edge, number: int) -> tuple[StoredEdge, str | None]:
    """An edge, which has an id, as it is written; and its metadata as JSON."""
    condition = None
    if isinstance(edge.condition, Condition):
        written = {"at": edge.condition.at, "is": edge.condition.test, "value": edge.condition.value}
        condition = json.dumps(written, sort_keys=True)
    metadata = json.dumps(dict(edge.metadata)) if edge.metadata else None
    row = StoredEdge(cast("str", edge.id), edge.source, edge.target, edge.when, number=number, condition=condition)
    return row, metadata


def condition_of(text: str) -> Condition:
    """The condition that a column's value holds."""
    written = json.loads(text)
    return Condition(written["at"], written["is"], written["value"])


def nodes_from(texts: Iterable[str]) -> dict[str, Node]:
    """The nodes that columns' values hold, by id."""
    document: dict[str, JSON] = {"nodes": [json.loads(text) for text in texts], "edges": []}
    return {node.id: node for node in read_graph(document).graph.nodes}


def read_nodes(connection: Connection, number: int) -> list[Node]:
    """Read the nodes of a graph in their order."""
    return list(nodes_from(connection.execute(_NODES, {"of_graph": number}).scalars()).values())


def read_edges(connection: Connection, number: int) -> list[Edge]:
    """Read the edges of a graph in their order."""
    return edges_from(connection.execute(EDGES, {"of_graph": number}))


def edges_from(rows: Iterable[Row[Any]]) -> list[Edge]:  # Any: the values of any column
    """The edges in rows."""
    return [
        Edge(
            row.source,
            row.target,
            When(row.when),
            condition=None if row.condition is None else condition_of(row.condition),
            id=row.id,
            metadata={} if row.metadata is None else json.loads(row.metadata),
        )
        for row in rows
    ]
