"""What scheduling a task graph costs: for each task, with instant tasks, and over connections in memory."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, NamedTuple

import trio

from galaxy_trio.graph import Graph, GraphState, open_graph

from .graph_constellation import InstantConstellation, open_devices
from .graph_shapes import layers

if TYPE_CHECKING:
    from galaxy_trio import Constellation

_DEVICES = 25


class Scheduling(NamedTuple):
    """Seconds of CPU time of this process."""

    nodes: int
    edges: int
    build: float
    """Making the graph of its nodes and edges, which checks it."""
    run: float
    """From `open_graph` until the graph has ended."""


async def _run(constellation: Constellation, graph: Graph) -> float:
    began = time.process_time()
    async with open_graph(constellation, graph) as run:
        result = await run.wait()
        seconds = time.process_time() - began
    if result.state is not GraphState.COMPLETED:
        raise RuntimeError(f"the graph is {result.state}")
    return seconds


async def _measure(count: int, width: int, rounds: int, *, connected: bool) -> Scheduling:
    parts = layers(count, width)
    builds: list[float] = []
    runs: list[float] = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        graph = Graph(*parts)
        builds.append(time.process_time() - began)
        if connected:
            async with open_devices(_DEVICES) as constellation:
                runs.append(await _run(constellation, graph))
        else:
            runs.append(await _run(InstantConstellation().as_constellation(), graph))
    # The best: other processes only add to the time.
    return Scheduling(len(parts.nodes), len(parts.edges), min(builds), min(runs))


def measure_scheduling(count: int, width: int, rounds: int, over: str) -> Scheduling:
    """Measure a shape some times in this process, and return the best.

    Args:
        count: The number of layers of the graph.
        width: The number of nodes in each.
        rounds: How many times it runs.
        over: ``devices`` for connections in memory, with their other ends in this process; ``nothing`` for tasks that end immediately.
    """

    async def main() -> Scheduling:
        return await _measure(count, width, rounds, connected=over == "devices")

    return trio.run(main)
