"""``galaxy-trio graph submit``, ``list``, ``cancel`` and ``retry``: graphs in the daemon."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

import click

from galaxy_trio._cli.check import problems_printed
from galaxy_trio._cli.graph.drawing import draw_graph
from galaxy_trio._cli.graph.endings import print_end, print_results
from galaxy_trio._cli.graph.output import JsonLines, Lines, Table, as_json_line
from galaxy_trio._cli.graph.progress import counts_in_words
from galaxy_trio._cli.graph.stored_graph import load_graph, path_of
from galaxy_trio._cli.loaded_graph import parse_graph
from galaxy_trio._cli.options import header_text, json_option, limit_option, valid_text
from galaxy_trio._cli.signals import Interrupted, run_trio
from galaxy_trio._cli.table import Column, cell, lay_out
from galaxy_trio._cli.task import Daemon, daemon_options
from galaxy_trio._cli.terminal import echo, echo_json, open_console, print_rows
from galaxy_trio._cli.times import local_time, seconds_between
from galaxy_trio._printable import one_line
from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import GraphResult, GraphState, NodeState, graph_document, read_graph
from galaxy_trio.graph.model import MAX_NODES
from galaxy_trio.graph.state_machine import ENDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text

    from galaxy_trio._cli.graph.output import Output
    from galaxy_trio._cli.loaded_graph import LoadedGraph
    from galaxy_trio.messages import JSON

_SIGNAL: Final = 128
"""The exit status of a signal is this and its number, as shells report it."""
_MAX_NAME: Final = 500
"""Characters of a name of which a table shows as many as there is room for."""
_COLUMNS: Final = (
    Column("graph"),
    Column("state", widest=16),
    Column("ended", right=True, widest=13, optional=True),
    Column("name", optional=True, fill=True),
)
_path = click.Path(path_type=Path)
_id = click.argument("graph_id", metavar="ID", type=valid_text)
_wait = click.option("--wait", is_flag=True, help="Show the graph until it has ended. Ctrl-C leaves it running.")


@click.command(
    "submit",
    epilog="\b\nExamples:\n    galaxy-trio graph submit plan.json\n    galaxy-trio graph submit plan.toml --wait",
)
@click.argument("file", type=_path)
@click.option(
    "--idempotency-key",
    type=header_text,
    metavar="KEY",
    help="Submit at most one graph with this KEY: submitting it again prints the same id.",
)
@_wait
@json_option
@daemon_options
def submit_command(daemon: Daemon, file: Path, *, idempotency_key: str | None, wait: bool, as_json: bool) -> int:
    """Submit the graph in FILE to the daemon and print its id.

    FILE has any form that "galaxy-trio graph check" reads. States and results in it are left out. An accepted graph is stored on disk and
    survives a restart of the daemon.
    """
    try:
        document = graph_document(read_graph(file, reset=True), format="ours")
        with daemon.client() as client:
            headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
            found = client.request("POST", "/graphs", json=document, headers=headers)
    except GraphFileError as error:
        raise problems_printed(file, error) from error
    if as_json and not wait:
        echo_json(found)
    if not as_json:
        echo(str(found["id"]))
    return follow_graph(daemon, str(found["id"]), as_json=as_json) if wait else 0


@click.command("list")
@click.option(
    "--state", type=click.Choice([state.value for state in GraphState]), metavar="STATE",
    help=f"Only graphs in this state: {', '.join(GraphState)}.",
)  # fmt: skip
@limit_option("graphs")
@json_option
@daemon_options
def list_command(daemon: Daemon, *, state: str | None, limit: int, as_json: bool) -> int:
    """List the graphs in the daemon, newest first."""
    parameters: dict[str, str | int] = {"limit": limit} if state is None else {"state": state, "limit": limit}
    with daemon.client() as client:
        graphs = cast("list[dict[str, JSON]]", client.request("GET", "/graphs", params=parameters)["graphs"])
    if as_json:
        echo_json(graphs)
        return 0
    if not graphs:
        echo("no graphs")
        return 0
    console = open_console()
    header, rows = lay_out(_COLUMNS, [_cells(graph) for graph in graphs], console.width)
    for line in [header, *(line for lines in rows for line in lines)]:
        console.print(line, soft_wrap=True)
    return 0


@click.command("cancel", epilog="\b\nExample:\n    galaxy-trio graph cancel 0123456789abcdef0123456789abcdef merge")
@_id
@click.argument("node_id", metavar="[NODE]", type=valid_text, required=False)
@json_option
@daemon_options
def cancel_command(daemon: Daemon, graph_id: str, *, node_id: str | None, as_json: bool) -> int:
    """Cancel a graph in the daemon, or one of its nodes.

    Nodes that have not started never do. Those that run are stopped on their devices.
    """
    with daemon.client() as client:
        if node_id is None:
            found = client.request("DELETE", path_of(graph_id))
        else:
            found = client.request("POST", f"{_node_path(graph_id, node_id)}/cancel")
    _print_record(found, as_json=as_json)
    return 0


@click.command("retry", epilog="\b\nExample:\n    galaxy-trio graph retry 0123456789abcdef0123456789abcdef merge")
@_id
@click.argument("node_id", metavar="NODE", type=valid_text)
@_wait
@json_option
@daemon_options
def retry_command(daemon: Daemon, graph_id: str, *, node_id: str, wait: bool, as_json: bool) -> int:
    """Run a node again that failed, was lost or was cancelled. Nodes that were skipped because of it wait again."""
    with daemon.client() as client:
        found = client.request("POST", f"{_node_path(graph_id, node_id)}/retry")
    if wait:
        return follow_graph(daemon, graph_id, as_json=as_json)
    _print_record(found, as_json=as_json)
    return 0


def find_stored(daemon: Daemon, graph_id: str) -> dict[str, JSON]:
    """Return a graph of the daemon, as the daemon sends it.

    Raises:
        RequestRejected: There is no such graph.
    """
    with daemon.client() as client:
        return client.request("GET", path_of(graph_id))


def load_stored(daemon: Daemon, graph_id: str, *, with_results: bool = False) -> LoadedGraph:
    """Return a graph of the daemon; with the results of its nodes on request.

    Raises:
        RequestRejected: There is no such graph, or its results are too large together.
        InvalidMessage: What the daemon sends is not a graph.
    """
    with daemon.client() as client:
        found = client.request("GET", path_of(graph_id))
        if with_results:
            found["graph"] = client.get_json(f"{path_of(graph_id)}?format=ours")
        return parse_graph(found, client.shown)


def print_stored(loaded: LoadedGraph) -> None:
    """Print what the daemon says of a graph, and its picture."""
    record, console = loaded.record, open_console()
    states = Counter(loaded.snapshot.node(node.id).state for node in loaded.snapshot.graph.nodes)
    rows = [
        ("graph", str(record.get("id"))),
        ("name", str(record.get("name") or "")),
        ("state", f"{loaded.state}: {counts_in_words(states)}"),
        ("version", str(record.get("version") or "")),
        ("accepted", local_time(record.get("created"))),
        ("ended", local_time(record.get("ended") or "")),
    ]
    print_rows(console, [(name, value) for name, value in rows if value])
    for line in draw_graph(loaded.snapshot, console.width):
        console.print(line, soft_wrap=True)


def follow_graph(daemon: Daemon, graph_id: str, *, as_json: bool) -> int:
    """Show a graph in the daemon until it has ended, and how it ended.

    Returns:
        The exit status: 0, or that of the signal that ended this. The graph goes on then.

    Raises:
        GraphFailed: The graph did not complete.
        RequestRejected: The daemon refused, for example because there is no such graph.
        ConnectFailed: The daemon was away for too long.
    """
    console = open_console()
    shown = JsonLines() if as_json else Table(console) if console.is_interactive else Lines()
    try:
        loaded = run_trio(partial(_follow, daemon, graph_id, shown))
    except Interrupted as interrupted:
        cancel = f"galaxy-trio graph cancel {one_line(graph_id)}"
        echo(f"the graph goes on in the daemon; to cancel it: {cancel}", err=True)
        return _SIGNAL + interrupted.signal_number
    graph = loaded.snapshot.graph
    result = GraphResult(loaded.state, {node.id: loaded.snapshot.node(node.id) for node in graph.nodes})
    if as_json:
        echo(as_json_line({"event": "GraphResult", "state": result.state, "results": result.results}))
    else:
        print_results(console, graph, result, f"galaxy-trio graph export {graph_id} --format ours")
        print_end(console, result, seconds_between(loaded.record.get("created"), loaded.record.get("ended")))
    result.unwrap()
    return 0


async def _follow(daemon: Daemon, graph_id: str, shown: Output) -> LoadedGraph:
    # The extra "daemon" is installed: a request was sent before.
    from galaxy_trio._cli.async_daemon_client import open_async_client  # noqa: PLC0415  # it may not be installed

    async with open_async_client(daemon.address, daemon.token) as client:
        graph = await load_graph(client, graph_id)
        if isinstance(shown, JsonLines):
            echo(as_json_line({"event": "Graph", **graph.record}))
        await shown.show(graph)
        return await graph.load_end()


def _node_path(graph_id: str, node_id: str) -> str:
    return f"{path_of(graph_id)}/nodes/{quote(node_id, safe='')}"


def _print_record(record: Mapping[str, JSON], *, as_json: bool) -> None:
    """Print the state of a graph, and the number of its nodes in each."""
    if as_json:
        echo_json(record)
    else:
        echo(f"{record.get('state')}: {counts_in_words(_counts(record))}")


def _counts(record: Mapping[str, JSON]) -> Counter[NodeState]:
    nodes = record.get("nodes")
    counts = nodes if isinstance(nodes, dict) else {}
    return Counter(
        {state: n for state in NodeState if isinstance(n := counts.get(state.value), int) and 0 <= n <= MAX_NODES}
    )


def _cells(record: Mapping[str, JSON]) -> list[Text]:
    counts = _counts(record)
    ended = sum(count for state, count in counts.items() if state in ENDED)
    return [
        cell(str(record.get("id"))),
        cell(str(record.get("state"))),
        cell(f"{ended:,} of {sum(counts.values()):,}"),
        cell(str(record.get("name") or "-")[:_MAX_NAME]),
    ]
