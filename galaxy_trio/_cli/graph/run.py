"""``galaxy-trio graph run``: runs a graph, and shows how it ended."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from galaxy_trio._cli.graph.endings import print_end, print_results
from galaxy_trio._cli.graph.output import JsonLines, Lines, Table, as_json_line
from galaxy_trio._cli.graph.running import Running, check_devices, run_graph, to_continue
from galaxy_trio._cli.options import json_option, verbose, whole_number
from galaxy_trio._cli.signals import run_trio
from galaxy_trio._cli.terminal import echo, open_console
from galaxy_trio._printable import one_line
from galaxy_trio.constellation.config import read_config
from galaxy_trio.errors import ConfigError
from galaxy_trio.graph import read_graph, write_graph

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.graph import GraphSnapshot

_SIGNAL: Final = 128
"""The exit status of a signal is this and its number, as shells report it."""
_ALL: Final = "--json and --output have all"

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
                print_results(console, snapshot.graph, result, _ALL)
            print_end(console, result, running.seconds, running.interrupted)
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
