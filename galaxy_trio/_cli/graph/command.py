"""``galaxy-trio graph``: checks, shows, runs and exports task graphs, in files and in the daemon."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from galaxy_trio._cli.check import problems_printed
from galaxy_trio._cli.graph.arguments import file_of, file_or_id
from galaxy_trio._cli.graph.drawing import draw_graph
from galaxy_trio._cli.graph.layers import layers_of
from galaxy_trio._cli.graph.progress import counts_in_words
from galaxy_trio._cli.graph.run import run_command
from galaxy_trio._cli.graph.running import check_devices
from galaxy_trio._cli.graph.stored import (
    cancel_command,
    find_stored,
    follow_graph,
    list_command,
    load_stored,
    print_stored,
    retry_command,
    submit_command,
)
from galaxy_trio._cli.options import json_option, verbose
from galaxy_trio._cli.task import Daemon, daemon_options
from galaxy_trio._cli.terminal import echo, echo_json, open_console
from galaxy_trio._counted import counted
from galaxy_trio._printable import one_line
from galaxy_trio.constellation.config import read_config
from galaxy_trio.errors import ConfigError, GraphFileError
from galaxy_trio.graph import NodeState, graph_document, read_graph, write_graph
from galaxy_trio.graph.files.reading import is_original, load_document

if TYPE_CHECKING:
    from collections.abc import Generator

_path = click.Path(path_type=Path)


@click.group("graph")
def graph_command() -> None:
    """Check, show, export and run task graphs, here or in the daemon."""


@contextmanager
def _printing_problems(file: Path) -> Generator[None]:
    try:
        yield
    except (ConfigError, GraphFileError) as error:
        raise problems_printed(file, error) from error


@graph_command.command("check", epilog="\b\nExample:\n    galaxy-trio graph check plan.json --devices devices.toml")
@click.argument("file", type=_path)
@click.option(
    "--devices", type=_path, metavar="DEVICES", help="Check also whether this file has the devices that the nodes name."
)
@verbose
def check_command(file: Path, *, devices: Path | None) -> int:
    """Check the graph in FILE and print every problem.

    FILE is JSON, YAML or TOML in the form of this package, or JSON in either form of the original.
    """
    with _printing_problems(file):
        snapshot = read_graph(file)
    if devices is not None:
        with _printing_problems(devices):
            config = read_config(devices)
        with _printing_problems(file):
            check_devices(snapshot, config, f"the graph {file}", devices)
    graph = snapshot.graph
    parts = [
        counted(len(graph.nodes), "node"),
        counted(len(graph.edges), "edge"),
        counted(len(layers_of(graph)), "layer"),
    ]
    document, _ = load_document(file)
    form = "the original's form" if is_original(cast("dict[str, object]", document)) else "our form"
    echo(f"{one_line(str(file))}: {', '.join(parts)}; in {form}")
    states = Counter(snapshot.node(node.id).state for node in graph.nodes)
    if set(states) - {NodeState.WAITING}:
        echo(f"results: {counts_in_words(states)}")
    return 0


@graph_command.command(
    "show",
    epilog="\b\nExamples:\n    galaxy-trio graph show plan.json\n"
    "    galaxy-trio graph show 0123456789abcdef0123456789abcdef --wait",
)
@file_or_id
@click.option(
    "--wait", is_flag=True, help="Follow the graph with this ID until it has ended. Ctrl-C leaves it running."
)
@json_option
@daemon_options
def show_command(daemon: Daemon, named: str, *, wait: bool, as_json: bool) -> int:
    """Show the layers and edges of a graph in a FILE or in the daemon.

    Each node is in the layer after the last of those that it waits for. If the graph has results, the nodes' states are shown as well.
    """
    file = file_of(named)
    if file is None:
        if wait:
            return follow_graph(daemon, named, as_json=as_json)
        if as_json:
            echo_json(find_stored(daemon, named))
        else:
            print_stored(load_stored(daemon, named))
        return 0
    if wait:
        raise ConfigError(f"--wait follows a graph in the daemon, and {file} is a file: submit it first")
    snapshot = read_graph(file)
    if as_json:
        echo_json({"graph": graph_document(snapshot, format="ours")})
        return 0
    console = open_console()
    for line in draw_graph(snapshot, console.width):
        console.print(line, soft_wrap=True)
    return 0


@graph_command.command(
    "export", epilog="\b\nExample:\n    galaxy-trio graph export plan.toml --format original -o plan.json"
)
@file_or_id
@click.option(
    "--format",
    "form",
    type=click.Choice(["original", "ours"]),
    metavar="FORMAT",
    required=True,
    help="The form: original, which UFO³ Galaxy reads, or ours.",
)
@click.option("-o", "--output", type=_path, metavar="OUT", help="Write this file instead of printing the document.")
@daemon_options
def export_command(daemon: Daemon, named: str, *, form: Literal["original", "ours"], output: Path | None) -> int:
    """Write a graph, in a FILE or in the daemon, in another form."""
    file = file_of(named)
    snapshot = load_stored(daemon, named, with_results=True).snapshot if file is None else read_graph(file)
    if output is None:
        echo(json.dumps(graph_document(snapshot, format=form), ensure_ascii=False, indent=2))
    else:
        write_graph(output, snapshot, format=form)
    return 0


for command in (run_command, submit_command, list_command, cancel_command, retry_command):
    graph_command.add_command(command)
