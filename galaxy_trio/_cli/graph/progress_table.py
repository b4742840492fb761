"""The live table of a running graph."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import trio
from rich.text import Text

from galaxy_trio._cli.graph.drawing import STYLES, device_in_words
from galaxy_trio._cli.graph.layers import shortened
from galaxy_trio._cli.graph.progress import STATES, counts_in_words
from galaxy_trio._cli.table import Column, cell, lay_out, note
from galaxy_trio._cli.times import duration
from galaxy_trio.graph import NodeState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio._cli.graph.progress import GraphProgress, NodeProgress

_COLUMNS: Final = (
    Column("node"),
    Column("layer", right=True, widest=6, optional=True),
    Column("state", widest=9),
    Column("device", widest=16, optional=True),
    Column("time", right=True, widest=7, optional=True),
    Column("attempt", right=True, widest=7, optional=True),
)
_RANK: Final = {state: rank for rank, state in enumerate(STATES)}
"""If there is not enough room, the nodes that a person looks for first are shown."""
_MOST_NOTES: Final = 4
"""Lines of notes below the table."""


def progress_table(progress: GraphProgress, *, width: int, rows: int, notes: Iterable[str] = ()) -> Text:
    """Return a table of a graph's nodes by layer, and below it the number of nodes in each state, and notes.

    Args:
        progress: The graph.
        width: The terminal's width.
        rows: The largest number of lines. If there are more, nodes that run or failed are shown rather than those that wait or completed.
        notes: Sentences to show below the table.
    """
    below = [cell(counts_in_words(progress.counts))]
    below[0].truncate(width, overflow="ellipsis")
    below += [line for text in notes for line in note(text, width)][:_MOST_NOTES]
    nodes = list(progress.nodes.values())
    room = max(rows - 1 - len(below), 1)
    # The best ones first: none of the others can have room.
    best = heapq.nsmallest(room, range(len(nodes)), lambda number: (_RANK[nodes[number].state], number))
    header, laid_out = lay_out(_COLUMNS, [_cells(nodes[number]) for number in best], width)
    lines_of = {number: [*row, *_reason(nodes[number], width)] for number, row in zip(best, laid_out, strict=True)}
    needed = sum(map(len, lines_of.values()))
    if len(best) < len(nodes) or needed > room:
        # The last line counts those that are not shown.
        room -= 1
    while needed > room and len(best) > 1:
        needed -= len(lines_of.pop(best.pop()))
    lines = [header, *(line for number in sorted(best) for line in lines_of[number])]
    if len(best) < len(nodes):
        lines.append(cell(f"… {len(nodes) - len(best):,} more", "dim"))
    return Text("\n").join(lines + below)


def _cells(node: NodeProgress) -> list[Text]:
    seconds = node.seconds()
    device = node.device_id if node.device_id is not None else device_in_words(node.node)
    total = node.node.retries + 1
    attempt = f"{node.attempt}" if total == 1 or node.attempt > total else f"{node.attempt} of {total}"
    return [
        cell(node.node.id),
        cell(f"{node.layer:,}"),
        cell(node.state.value, STYLES[node.state]),
        cell(device, "" if node.device_id is not None else "dim"),
        cell("-" if seconds is None else duration(seconds)),
        cell(attempt if node.attempt else "-"),
    ]


def _reason(node: NodeProgress, width: int) -> list[Text]:
    if node.error is None or node.state is NodeState.CANCELLED:
        return []
    again = "" if node.next_try is None else f" (retry in {duration(node.next_try - trio.current_time())})"
    return note(f"{shortened(node.error)}{again}", width)
