"""A task graph on a terminal: its layers, and below each node what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from galaxy_trio._cli.graph.layers import edges_in_words, layers_of, shortened
from galaxy_trio._cli.table import Column, cell, lay_out, note
from galaxy_trio._counted import counted
from galaxy_trio.graph import NodeState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from galaxy_trio.graph import Edge, GraphSnapshot, Node, NodeResult

STYLES: Final[Mapping[NodeState, str]] = {
    NodeState.WAITING: "dim",
    NodeState.READY: "yellow",
    NodeState.RUNNING: "cyan",
    NodeState.COMPLETED: "green",
    NodeState.FAILED: "red",
    NodeState.LOST: "red",
    NodeState.CANCELLED: "magenta",
    NodeState.SKIPPED: "dim",
}
_MAX_TEXT: Final = 500
"""Characters of a request of which a table shows as many as there is room for."""
_INDENT: Final = "  "
_STATE: Final = Column("state", widest=9)
_COLUMNS: Final = (
    Column("node", widest=32),
    _STATE,
    Column("device", widest=24, optional=True),
    Column("task", optional=True, fill=True),
)


def draw_graph(snapshot: GraphSnapshot, width: int) -> Iterator[Text]:
    """Return the lines of a graph's picture, none of which is wider than the terminal.

    Args:
        snapshot: The graph. The states of its nodes are shown if one of them has begun.
        width: The terminal's width.
    """
    has_states = any(result.state is not NodeState.WAITING for result in snapshot.nodes.values())
    columns = [column for column in _COLUMNS if has_states or column is not _STATE]
    incoming: dict[str, list[Edge]] = {}
    for edge in snapshot.graph.edges:
        incoming.setdefault(edge.target, []).append(edge)
    layers = layers_of(snapshot.graph)
    nodes = [node for layer in layers for node in layer]
    rows = [_cells(node, snapshot.node(node.id), has_states=has_states) for node in nodes]
    header, laid_out = lay_out(columns, rows, width - len(_INDENT))
    if nodes:
        yield _indented(header)
    lines_of = dict(zip((node.id for node in nodes), laid_out, strict=True))
    for number, layer in enumerate(layers, 1):
        # A single node needs no count.
        size = f": {counted(len(layer), 'node')}" if len(layer) > 1 else ""
        yield cell(f"layer {number:,}{size}", "bold")
        for node in layer:
            result = snapshot.node(node.id)
            notes = [edges_in_words(incoming.get(node.id, ()))]
            if result.error is not None and result.state is not NodeState.CANCELLED:
                notes.append(shortened(result.error))
            yield from map(_indented, lines_of[node.id])
            yield from (_indented(line) for text in notes if text for line in note(text, width - len(_INDENT)))


def device_in_words(node: Node) -> str:
    """Name the device of a node, or say what one must have."""
    if node.device is not None:
        return node.device
    return ", ".join([*([node.os] if node.os else []), *sorted(node.capabilities)]) or "any"


def _indented(line: Text) -> Text:
    return Text(_INDENT).append_text(line)


def _cells(node: Node, result: NodeResult, *, has_states: bool) -> list[Text]:
    return [
        cell(node.id),
        *([cell(result.state.value, STYLES[result.state])] if has_states else []),
        cell(device_in_words(node)),
        cell((node.name or node.request)[:_MAX_TEXT]),
    ]
