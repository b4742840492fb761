"""Runs a graph for the command line: until it has ended, or a signal has stopped it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio._cli.graph.shown import LocalGraph
from galaxy_trio._cli.signals import wait_signalled
from galaxy_trio._cli.terminal import spinner
from galaxy_trio._config.reader import MAX_PROBLEMS, check_problems
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.graph import GraphRun, GraphSnapshot, NodeState, open_graph

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio._cli.graph.output import Output
    from galaxy_trio.constellation.config import ConstellationConfig
    from galaxy_trio.graph import GraphResult


@attrs.define
class Running:
    """A graph that runs, or has run.

    Attributes:
        run: The graph, from when it runs.
        signal_number: The signal that cancelled it.
        interrupted: The ids of the nodes that ran then.
        seconds: How long it ran.
    """

    run: GraphRun | None = None
    signal_number: int | None = None
    interrupted: Sequence[str] = ()
    seconds: float | None = None


async def run_graph(
    config: ConstellationConfig,
    snapshot: GraphSnapshot,
    output: Output,
    running: Running,
    *,
    max_concurrent: int | None = None,
) -> GraphResult:
    """Run a graph on the devices of a file until it has ended.

    The first signal cancels the graph, and this waits until what runs is stopped. Cancelling stops everything immediately.

    Args:
        config: The devices.
        snapshot: The graph.
        output: Shows it.
        running: Receives the graph, and the signal that cancelled it.
        max_concurrent: The number of nodes that run at a time; None for no limit.
    """
    with ExitStack() as closing:
        async with (
            open_constellation(_connecting(config, snapshot), options=ConnectionOptions(proxy=True)) as constellation,
            open_graph(constellation, snapshot, max_concurrent=max_concurrent) as run,
            trio.open_nursery() as nursery,
        ):
            running.run, started = run, trio.current_time()

            def cancel(signal_number: int) -> None:
                running.signal_number = signal_number
                running.interrupted = [node_id for node_id, state in run.states.items() if state is NodeState.RUNNING]
                run.cancel()
                output.stopping()

            nursery.start_soon(wait_signalled, cancel)
            await output.show(LocalGraph(run, constellation))
            result = await run.wait()
            running.seconds = trio.current_time() - started
            nursery.cancel_scope.cancel()
            # A server that does not answer delays this by a few seconds.
            closing.enter_context(spinner("closing the connections; Ctrl-C leaves immediately"))
    return result


def _connecting(config: ConstellationConfig, snapshot: GraphSnapshot) -> ConstellationConfig:
    """Connect also the devices that are not connected at the start, if a node names them."""
    named = {node.device for node in snapshot.graph.nodes}
    devices = tuple(
        attrs.evolve(device, auto_connect=device.auto_connect or device.device_id in named) for device in config.devices
    )
    return attrs.evolve(config, devices=devices)


def to_continue(snapshot: GraphSnapshot, *, retry: bool) -> GraphSnapshot:
    """Return a graph in which nodes wait again that were cancelled, when the graph was stopped, and those that were skipped.

    Edges are decided again, from the results of those that ended.

    Args:
        snapshot: The graph, as it was read.
        retry: Whether those that failed or were lost wait again as well.
    """
    again = {NodeState.CANCELLED, NodeState.SKIPPED, *((NodeState.FAILED, NodeState.LOST) if retry else ())}
    kept = {node_id: result for node_id, result in snapshot.nodes.items() if result.state not in again}
    return GraphSnapshot(snapshot.graph, snapshot.version, kept)


def check_devices(snapshot: GraphSnapshot, config: ConstellationConfig, shown: str, file: Path) -> None:
    """Check that a file has the devices that the nodes name.

    Args:
        snapshot: The graph.
        config: The devices.
        shown: The subject of the error: the graph.
        file: The file of the devices.

    Raises:
        ConfigError: It does not. The error names each node.
    """
    known = [device.device_id for device in config.devices]
    ids = set(known)
    check_problems(
        shown,
        [
            f"node {node.id!r}: there is no device {node.device!r} in {file}{did_you_mean_or_known(node.device, known)}"
            for node in snapshot.graph.nodes
            if node.device is not None and node.device not in ids
        ][:MAX_PROBLEMS],
    )
