"""``galaxy-trio graph run``: runs a graph, and shows how it ended."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from galaxy_trio._cli.graph.output import ENDS, JsonLines, Lines, Table, as_json_line
from galaxy_trio._cli.graph.progress import counts_in_words
from galaxy_trio._cli.graph.running import Running, check_devices, run_graph, to_continue
from galaxy_trio._cli.options import json_option, verbose, whole_number
from galaxy_trio._cli.signals import run_trio
from galaxy_trio._cli.table import cell
from galaxy_trio._cli.terminal import echo, open_console, print_rows
from galaxy_trio._cli.times import duration
from galaxy_trio._printable import one_line
from galaxy_trio.constellation.config import read_config
from galaxy_trio.errors import ConfigError
from galaxy_trio.graph import NodeState, read_graph, write_graph

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console

    from galaxy_trio.graph import Graph, GraphResult, GraphSnapshot
    from galaxy_trio.messages import JSON

_SIGNAL: Final = 128
"""The exit status of a signal is this and its number, as shells report it."""
_MOST_ROWS: Final = 20
"""The results, and the nodes that were stopped, that are printed."""
_MAX_RESULT: Final = 500
"""Characters of a result that are printed."""

_path = click.Path(path_type=Path)


@click.command(
    "run",
    epilog="\b\nExamples:\n    galaxy-trio graph run plan.json --devices devices.toml --output plan.json\n"
    "    galaxy-trio graph run plan.json --devices devices.toml --retry",
)
@click.argument("file", type=_path)
@click.option("--devices", type=_path, metavar="DEVICES", required=True, help="The file of the devices.")
@click.option("--output", type=_path, metavar="OUT", help="Write the graph with its results to this file at the end.")
@click.option("--retry", is_flag=True, help="Run nodes of FILE again that failed or were lost.")
@click.option("--reset", is_flag=True, help="Forget the results in FILE, and run all nodes.")
@click.option("--max-concurrent", type=whole_number(1), metavar="NUMBER", help="Run at most this many nodes at a time.")
@json_option
@verbose
def run_command(
    file: Path,
    *,
    devices: Path,
    output: Path | None,
    retry: bool,
    reset: bool,
    max_concurrent: int | None,
    as_json: bool,
) -> int:
    """Run the graph in FILE on the devices in DEVICES.

    On a terminal it shows a live table, in a pipe a line for each event. If FILE has results, those of nodes that completed, failed or were
    lost stay, and the others run. Exits with 0 if the graph completed, and with 1 if a node failed or was lost.

    Ctrl-C cancels the graph, stops what runs on the devices, and exits with 130. A second Ctrl-C does not wait for that.
    """
    config, snapshot = read_config(devices), to_continue(read_graph(file, reset=reset), retry=retry)
    check_devices(snapshot, config, f"the graph {file}", devices)
    console, running = open_console(), Running()
    shown = JsonLines() if as_json else Table(console) if console.is_interactive else Lines()
    with _saving(output, snapshot, running):
        result = run_trio(partial(run_graph, config, snapshot, shown, running, max_concurrent=max_concurrent))
        if as_json:
            echo(as_json_line({"event": "GraphResult", "state": result.state, "results": result.results}))
        else:
            if output is None:
                _print_results(console, snapshot.graph, result)
            _print_end(console, running, result)
    if output is not None and not as_json:
        echo(f"written: {one_line(str(output))}")
    if running.signal_number is not None:
        return _SIGNAL + running.signal_number
    result.unwrap()
    return 0


@contextmanager
def _saving(output: Path | None, snapshot: GraphSnapshot, running: Running) -> Generator[None]:
    """Write the graph to a file at the end of the block, however it ends.

    It is written at the beginning as well: a file that cannot be written is an error before hours of work depend on it.
    """
    if output is None:
        yield
        return
    if output.suffix.lower() == ".toml":
        raise ConfigError(
            f"the results cannot be written to {output}, because TOML has no null: name it .json or .yaml"
        )
    write_graph(output, snapshot)
    try:
        yield
    finally:
        if running.run is not None:
            write_graph(output, running.run.snapshot())


def _print_results(console: Console, graph: Graph, result: GraphResult) -> None:
    """Print the results of the nodes that completed, and after which no other node did."""
    completed = {node_id for node_id, node in result.results.items() if node.state is NodeState.COMPLETED}
    last = completed - {edge.source for edge in graph.edges if edge.target in completed}
    results = ((node_id, node.result) for node_id, node in result.results.items() if node_id in last)
    _print_first(
        console,
        [(f"result of {_name(console, node_id)}:", _text_of(value)) for node_id, value in results if value is not None],
    )


def _print_end(console: Console, running: Running, result: GraphResult) -> None:
    """Print what was stopped, and the number of nodes in each state."""
    _print_first(
        console,
        [
            (f"{ENDS[result.results[node_id].state]}:", f"{node_id} on {result.results[node_id].device_id}")
            for node_id in running.interrupted
        ],
    )
    counts = Counter(node.state for node in result.results.values())
    took = "" if running.seconds is None else f" after {duration(running.seconds)}"
    print_rows(console, [("graph", f"{result.state}{took}: {counts_in_words(counts)}")], gap=1)


def _print_first(console: Console, rows: list[tuple[str, str]]) -> None:
    print_rows(console, rows[:_MOST_ROWS], gap=1)
    if len(rows) > _MOST_ROWS:
        echo(f"… {len(rows) - _MOST_ROWS:,} more: --json and --output have all")


def _name(console: Console, node_id: str) -> str:
    """Cut a name so that it has room on a terminal."""
    name = cell(node_id)
    if not console.soft_wrap:
        name.truncate(console.width // 2, overflow="ellipsis")
    return name.plain


def _text_of(result: JSON) -> str:
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return text if len(text) <= _MAX_RESULT else f"{text[:_MAX_RESULT]}… ({len(text):,} characters)"
