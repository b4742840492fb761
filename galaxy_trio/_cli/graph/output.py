"""What a running graph prints: a live table on a terminal, lines in a pipe, or JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

import attrs
import trio
from rich.live import Live

from galaxy_trio._cli.devices import line_of as line_of_device
from galaxy_trio._cli.graph.layers import edges_in_words, shortened
from galaxy_trio._cli.graph.progress import GraphProgress, NodeProgress, counts_in_words
from galaxy_trio._cli.graph.progress_table import progress_table
from galaxy_trio._cli.graph.stored_events import NodeRetriedWithin
from galaxy_trio._cli.terminal import echo_in_thread, print_hint
from galaxy_trio._cli.times import duration
from galaxy_trio._counted import counted
from galaxy_trio._printable import one_line
from galaxy_trio.events import (
    DeviceConnected,
    EventsLost,
)
from galaxy_trio.graph import (
    GraphSnapshot,
    NodeEnded,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    NodeState,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from attrs import AttrsInstance
    from rich.console import Console
    from rich.text import Text

    from galaxy_trio._cli.graph.shown import AnyEvent, DeviceEvent, ShownGraph

_REFRESH_INTERVAL: Final = 0.5
"""Seconds between two updates of the live table."""
ENDS: Final = {
    NodeState.COMPLETED: "completed",
    NodeState.FAILED: "failed",
    NodeState.CANCELLED: "was stopped",
    NodeState.LOST: "was lost",
}
"""The ends of a node that ran, in sentences."""
_STOPPING: Final = "stopping what runs; Ctrl-C again leaves immediately"


class Output(Protocol):
    """Shows a graph while it runs."""

    async def show(self, graph: ShownGraph) -> None:
        """Show a graph until it has ended."""
        ...

    def stopping(self) -> None:
        """Show that the graph was cancelled, and that what runs is being stopped."""
        ...


class Table:
    """A live table.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stopping = False

    async def show(self, graph: ShownGraph) -> None:
        """Show a graph until it has ended. The table stays."""
        progress = GraphProgress(graph.snapshot())

        async def follow(event: AnyEvent) -> None:
            progress.apply(event, graph, graph.event_time())

        with Live(console=self._console, auto_refresh=False) as live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._refresh, live, progress, graph)
                await graph.follow(follow)
                nursery.cancel_scope.cancel()
            live.update(self._table(progress, ()), refresh=True)

    async def _refresh(self, live: Live, progress: GraphProgress, graph: ShownGraph) -> None:
        while True:
            notes = [_STOPPING] if self._stopping else []
            # A person asks why a node does not start.
            absences = graph.absences() if progress.counts[NodeState.READY] else ()
            table = self._table(progress, [*notes, *absences])
            # A person may have stopped the terminal with Ctrl-S.
            await trio.to_thread.run_sync(partial(live.update, table, refresh=True))
            await trio.sleep(_REFRESH_INTERVAL)

    def _table(self, progress: GraphProgress, notes: Iterable[str]) -> Text:
        return progress_table(progress, width=self._console.width, rows=self._console.height - 1, notes=notes)

    def stopping(self) -> None:
        """Show it below the table."""
        self._stopping = True


class Lines:
    """A line for each event."""

    async def show(self, graph: ShownGraph) -> None:
        """Print the events of a graph and of its devices until the graph has ended."""
        progress, printing = GraphProgress(graph.snapshot()), trio.Lock()
        reasons: dict[str, str | None] = {}

        async def print_line(line: str | None) -> None:
            if line is not None:
                async with printing:
                    await echo_in_thread(f"{datetime.now().astimezone():%H:%M:%S} {one_line(line)}")

        async def print_event(event: AnyEvent) -> None:
            node = progress.apply(event, graph, graph.event_time())
            await print_line(line_of(event, node, progress))

        async def print_device(event: DeviceEvent) -> None:
            # Not every attempt to connect that fails for the same reason.
            reason = None if isinstance(event, DeviceConnected) else event.reason
            if event.device_id not in reasons or reasons[event.device_id] != reason:
                reasons[event.device_id] = reason
                await print_line(line_of_device(event))

        await _follow_both(graph, print_event, print_device)

    def stopping(self) -> None:
        """Tell a person on stderr."""
        print_hint(_STOPPING)


class JsonLines:
    """A JSON object for each event."""

    async def show(self, graph: ShownGraph) -> None:
        """Print the events of a graph and of its devices until the graph has ended."""
        printing = trio.Lock()

        async def print_event(event: AnyEvent | DeviceEvent) -> None:
            fields = _states(event) if isinstance(event, GraphSnapshot) else attrs.asdict(event, recurse=False)
            line = {"event": type(event).__name__, "time": datetime.now(UTC), **fields}
            async with printing:
                await echo_in_thread(as_json_line(line))

        await _follow_both(graph, print_event, print_event)

    def stopping(self) -> None:
        """Tell a person on stderr."""
        print_hint(_STOPPING)


async def _follow_both(
    graph: ShownGraph,
    handle: Callable[[AnyEvent], Awaitable[None]],
    handle_device: Callable[[DeviceEvent], Awaitable[None]],
) -> None:
    """Handle the events of a graph until it has ended, and those of its devices."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(graph.follow_devices, handle_device)
        await graph.follow(handle)
        nursery.cancel_scope.cancel()


def line_of(event: AnyEvent, node: NodeProgress | None, progress: GraphProgress) -> str | None:
    """Describe an event of a graph in a sentence; None for one that is not shown.

    Args:
        event: The event.
        node: The node that it is about, after the event.
        progress: The graph.
    """
    took = "" if node is None or node.took is None else f" after {duration(node.took)}"
    match event, node:
        case GraphSnapshot(), _ if progress.counts[NodeState.RUNNING]:
            # It runs already, in the daemon.
            return counts_in_words(progress.counts)
        case EventsLost(), _:
            return f"{counted(event.count, 'event')} not shown: they came faster than they could be printed"
        case NodeStarted(), NodeProgress():
            # A person may have retried it more often.
            total = f" of {node.node.retries + 1}" if event.attempt <= node.node.retries + 1 else ""
            again = f", attempt {event.attempt}{total}" if event.attempt > 1 else ""
            return f"{event.node_id} started on {event.device_id}{again}"
        case NodeRetried() | NodeRetriedWithin(), NodeProgress():
            why = shortened(event.error or "no reason was given")
            again = (
                f"in {duration(event.wait)}" if isinstance(event, NodeRetried) else f"within {duration(event.within)}"
            )
            return f"{event.node_id} failed on {node.device_id}{took}: {why} (retry {again})"
        case NodeEnded(), NodeProgress() if took or event.state is not NodeState.CANCELLED:
            where = f" on {node.device_id}{took}" if took else ""
            why = f": {shortened(event.error)}" if event.error and event.state is not NodeState.CANCELLED else ""
            return f"{event.node_id} {ENDS[event.state]}{where}{why}"
        case NodeSkipped(), NodeProgress() if event.edge_id in progress.edges:
            edge = progress.edges[event.edge_id]
            source = progress.nodes[edge.source]
            return f"{event.node_id} was skipped ({edges_in_words([edge])}): {edge.source} is {source.state.value}"
        case _:
            return None


def _states(snapshot: GraphSnapshot) -> dict[str, object]:
    states = {node.id: snapshot.node(node.id).state for node in snapshot.graph.nodes}
    return {"version": snapshot.version, "states": states}


def as_json_line(value: object) -> str:
    """Write attrs objects, times and mappings as JSON on one line."""
    return json.dumps(value, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if attrs.has(type(value)):
        return attrs.asdict(cast("AttrsInstance", value), recurse=False)
    return dict(cast("Mapping[str, object]", value))
