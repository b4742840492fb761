"""How a graph has ended: the last results, and the number of nodes in each state."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Final

from galaxy_trio._cli.graph.output import ENDS
from galaxy_trio._cli.graph.progress import counts_in_words
from galaxy_trio._cli.table import cell
from galaxy_trio._cli.terminal import echo, print_rows
from galaxy_trio._cli.times import duration
from galaxy_trio.graph import NodeState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from galaxy_trio.graph import Graph, GraphResult
    from galaxy_trio.messages import JSON

_MOST_ROWS: Final = 20
"""The results, and the nodes that were stopped, that are printed."""
_MAX_RESULT: Final = 500
"""Characters of a result that are printed."""


def print_results(console: Console, graph: Graph, result: GraphResult, everything: str) -> None:
    """Print the results of the nodes that completed, and after which no other node did.

    Args:
        console: Where to print.
        graph: The graph.
        result: Its result.
        everything: What has all results, if there are too many to print.
    """
    completed = {node_id for node_id, node in result.results.items() if node.state is NodeState.COMPLETED}
    last = completed - {edge.source for edge in graph.edges if edge.target in completed}
    results = ((node_id, node.result) for node_id, node in result.results.items() if node_id in last)
    _print_first(
        console,
        [(f"result of {_name(console, node_id)}:", _text_of(value)) for node_id, value in results if value is not None],
        everything,
    )


def print_end(
    console: Console, result: GraphResult, seconds: float | None = None, interrupted: Sequence[str] = ()
) -> None:
    """Print what was stopped, and the number of nodes in each state.

    Args:
        console: Where to print.
        result: The graph's result.
        seconds: How long it ran; None if that is not known.
        interrupted: The ids of the nodes that ran when it was cancelled.
    """
    results = result.results
    _print_first(
        console,
        [(f"{ENDS[results[node_id].state]}:", f"{node_id} on {results[node_id].device_id}") for node_id in interrupted],
        "--json and --output have all",
    )
    counts = Counter(node.state for node in results.values())
    took = "" if seconds is None else f" after {duration(seconds)}"
    print_rows(console, [("graph", f"{result.state}{took}: {counts_in_words(counts)}")], gap=1)


def _print_first(console: Console, rows: list[tuple[str, str]], everything: str) -> None:
    print_rows(console, rows[:_MOST_ROWS], gap=1)
    if len(rows) > _MOST_ROWS:
        echo(f"… {len(rows) - _MOST_ROWS:,} more: {everything}")


def _name(console: Console, node_id: str) -> str:
    """Cut a name so that it has room on a terminal."""
    name = cell(node_id)
    if not console.soft_wrap:
        name.truncate(console.width // 2, overflow="ellipsis")
    return name.plain


def _text_of(result: JSON) -> str:
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return text if len(text) <= _MAX_RESULT else f"{text[:_MAX_RESULT]}… ({len(text):,} characters)"
