"""The demonstration's task graph: eight nodes over three devices, and a ninth that is added while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio._cli.demo.report import Stopwatch, show_time
from galaxy_trio._cli.graph.layers import layers_of
from galaxy_trio.graph import (
    Edge,
    Graph,
    GraphEnded,
    GraphState,
    Node,
    NodeEnded,
    NodeRetried,
    NodeStarted,
    NodeState,
    When,
    open_graph,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from galaxy_trio._cli.demo.report import Report
    from galaxy_trio._cli.demo.work import Work
    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.graph import NodeResult

SYSTEMS: Final = {"download": "linux", "scan": "windows", "photograph": "darwin"}
"""The first nodes, and the systems of their devices."""
RETRIED: Final = "merge"
SKIPPED: Final = ("repair", "repeat")
ADDED: Final = "archive"
_WORK: Final = "0.2"
"""Seconds of work of each node."""
FAILING: Final = "0.1"
"""The work of the node that fails, by which the server knows it."""
_BACKOFF: Final = 0.3


def make_graph(pace: float) -> Graph:
    """Make the graph: a node on each system, a merge of their results, and a branch for each of its ends."""
    nodes = [
        *(Node(node_id, _WORK, os=system) for node_id, system in SYSTEMS.items()),
        Node(RETRIED, FAILING, retries=2, backoff=_BACKOFF * pace),
        *(Node(node_id, _WORK) for node_id in ("report", "mail", *SKIPPED)),
    ]
    edges = [
        *(Edge(node_id, RETRIED) for node_id in SYSTEMS),
        Edge(RETRIED, "report"),
        Edge("report", "mail"),
        Edge(RETRIED, SKIPPED[0], When.FAILURE),
        Edge(*SKIPPED),
    ]
    return Graph(nodes, edges)


async def show_graph(report: Report, constellation: Constellation, work: Work, pace: float) -> None:
    """Run the graph on a constellation of three devices, and add a node while its first three run."""
    graph = make_graph(pace)
    work.expect(len(SYSTEMS))
    # However long the edit takes, the first nodes run until it is done.
    work.hold()
    work.fail_once(FAILING)
    stopwatch = Stopwatch()
    async with (
        open_graph(constellation, graph, make_request=_request_alone) as run,
        run.subscribe() as events,
    ):
        await work.all_begun.wait()
        running, before = run.statistics().nodes[NodeState.RUNNING], stopwatch.lap()
        run.edit(lambda edit: edit.add(Node(ADDED, _WORK), after=[RETRIED]))
        edited = stopwatch.lap()
        work.expect(0)
        work.release()
        happened: list[object] = []
        async for event in events:
            happened.append(event)
            if isinstance(event, GraphEnded):
                break
        result, edges = await run.wait(), run.snapshot().graph.edges
    took = before + edited + stopwatch.lap()
    nodes = result.results
    completed = sum(node.state is NodeState.COMPLETED for node in nodes.values())
    devices = {nodes[node_id].device_id for node_id in SYSTEMS}
    failures = [event for event in happened if isinstance(event, NodeRetried)]
    skipped = [node_id for node_id in SKIPPED if nodes[node_id].state is NodeState.SKIPPED]
    report.show(
        ("graph", f"{len(graph.nodes)} nodes, {len(graph.edges)} edges, {len(layers_of(graph))} layers"),
        ("first", f"{running} nodes run, on {len(devices)} devices"),
        ("added", f"{ADDED}, after {RETRIED}, in {show_time(edited)}"),
        *((RETRIED, f"failed: {event.error}; retried {show_time(event.wait)} later") for event in failures),
        ("", f"{nodes[RETRIED].state} on attempt {nodes[RETRIED].attempt}"),
        ("skipped", f"{', '.join(skipped)}: they run after a failure of {RETRIED}"),
        (ADDED, f"{nodes[ADDED].state}; sent {_between(nodes[RETRIED], nodes[ADDED])} after the end of {RETRIED}"),
        ("the graph", f"{result.state}: {completed} nodes completed, {len(skipped)} were skipped"),
        ("time taken", show_time(took)),
    )
    report.check("the first nodes ran concurrently, each on a device of its own", holds=running == len(devices) == 3)
    report.check(
        "the node that failed was sent once more, and completed",
        holds=len(failures) == 1 and (nodes[RETRIED].state, nodes[RETRIED].attempt) == (NodeState.COMPLETED, 2),
    )
    report.check("the branch for its failure was skipped", holds=len(skipped) == len(SKIPPED))
    report.check("the node that was added completed", holds=nodes[ADDED].state is NodeState.COMPLETED)
    report.check("each node was sent after the end of those that it waits for", holds=_in_order(happened, edges))
    report.check("the graph completed", holds=result.state is GraphState.COMPLETED)


def _request_alone(node: Node, results: Mapping[str, NodeResult]) -> str:
    # The work is a number. The results of other nodes are not part of it.
    del results
    return node.request


def _between(first: NodeResult, second: NodeResult) -> str:
    if first.ended is None or second.started is None:
        return "never"
    return show_time((second.started - first.ended).total_seconds())


def _in_order(happened: Sequence[object], edges: Sequence[Edge]) -> bool:
    """Whether each node that was sent was sent after the end of all sources of its edges."""
    ends = {event.node_id: at for at, event in enumerate(happened) if isinstance(event, NodeEnded)}
    starts = {event.node_id: at for at, event in enumerate(happened) if isinstance(event, NodeStarted)}
    never = len(happened)
    return all(ends.get(edge.source, never) < starts.get(edge.target, never) for edge in edges if edge.target in starts)
