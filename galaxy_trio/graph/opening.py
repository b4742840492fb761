"""Runs a graph for the length of a block."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from galaxy_trio._arguments import check_positive
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._concurrency.slices import finish
from galaxy_trio.graph.node_requests import make_request as make_default_request
from galaxy_trio.graph.planning import Planning
from galaxy_trio.graph.run import GraphRun
from galaxy_trio.graph.snapshot import GraphSnapshot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from random import Random

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.graph.model import Graph, Node
    from galaxy_trio.graph.planning import Planner
    from galaxy_trio.graph.snapshot import NodeResult


@asynccontextmanager
async def open_graph(
    constellation: Constellation,
    graph: Graph | GraphSnapshot,
    *,
    max_concurrent: int | None = None,
    make_request: Callable[[Node, Mapping[str, NodeResult]], str] = make_default_request,
    planner: Planner | None = None,
    planner_timeout: float = 600.0,
    random: Random | None = None,
) -> AsyncGenerator[GraphRun]:
    """Run a graph on a constellation for the length of the block.

    A node runs when all its edges hold, on its device or on the one that fits best. The failure of a node does not end the block.
    At the end of the block, and when it is cancelled, all running tasks are stopped on their devices: use `GraphRun.wait` to wait for
    the graph's end. An exception of the planner, of `make_request`, of `Node.where` or of a condition cancels the block and is raised.

    The results of all nodes together may take 1 GiB of memory. A node whose result is above that fails.

    Args:
        constellation: Runs the nodes' tasks.
        graph: The graph. A snapshot continues where it was taken; nodes that ran then are lost.
        max_concurrent: The number of nodes that run at a time; None for no limit.
        make_request: Makes the text that is sent for a node from the node and the results of those before it.
        planner: Called with the ends of nodes; may return an edit.
        planner_timeout: Seconds that the planner may take for the ends of one call.
        random: The source of the jitter of waits.

    Raises:
        ConfigError: A limit is not above 0.
        GraphError: The snapshot is inconsistent, or its results are above the limit.
    """
    check_positive(max_concurrent=max_concurrent, planner_timeout=planner_timeout)
    snapshot = graph if isinstance(graph, GraphSnapshot) else GraphSnapshot(graph)
    with ExitStack() as stack:
        async with open_background() as nursery:
            run = GraphRun(nursery, constellation, snapshot, max_concurrent, make_request, random)
            stack.callback(run._close)
            await finish(run._load(snapshot))
            planning = None if planner is None else Planning(run, planner, planner_timeout)
            if planning is not None:
                nursery.start_soon(planning.run)
            run._begin(planning)
            yield run
