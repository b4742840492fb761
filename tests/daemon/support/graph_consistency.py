"""What the rows of all graphs in a database must be at every moment, also right after the death of a daemon.

The rules are written here a second time, without the package's state machine.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
from sqlalchemy import Row, select

from galaxy_trio.daemon.store.schema import GRAPH_EDGES, GRAPH_NODES, GRAPHS, RESULTS, TASKS
from galaxy_trio.messages import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection


ENDED: Final = frozenset({"completed", "failed", "cancelled", "lost", "skipped"})
"""The states of a node that has ended."""
_UNENDED_TASK: Final = ("queued", "running")
_HOLDS: Final = {
    "completed": {"success", "end"},
    "failed": {"failure", "end"},
    "lost": {"failure", "end"},
    "cancelled": {"end"},
    "skipped": {"end"},
}
"""The edges that hold after each end of their source, besides those with a condition."""
_TESTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda found, value: found == value,
    "lt": lambda found, value: found < value,
    "ge": lambda found, value: found >= value,
}
"""The tests of conditions that these graphs have: each is about a member of the result."""


@attrs.frozen
class StoredGraph:
    """The rows of a graph.

    Attributes:
        row: Its own.
        nodes: Those of its nodes, by id.
        edges: Those of its edges.
        tasks: Those of each node's tasks, by the node's id, in the order in which they were added.
        results: The results of tasks, by the task's id.
    """

    row: Row[Any]  # Any: the values of any column, here and below
    nodes: Mapping[str, Row[Any]]
    edges: Collection[Row[Any]]
    tasks: Mapping[str, list[Row[Any]]]
    results: Mapping[str, JSON]


def read_graphs(connection: Connection) -> Iterator[StoredGraph]:
    """Read all graphs. The connection must show one state of the database in all statements."""
    nodes, edges = defaultdict[int, dict[str, Any]](dict), defaultdict[int, list[Any]](list)
    for row in connection.execute(select(GRAPH_NODES).order_by(GRAPH_NODES.c.number)):
        nodes[row.graph][row.id] = row
    for row in connection.execute(select(GRAPH_EDGES).order_by(GRAPH_EDGES.c.number)):
        edges[row.graph].append(row)
    tasks = defaultdict[str, defaultdict[str, list[Any]]](lambda: defaultdict(list))
    ids: dict[int, str] = {}
    for row in connection.execute(select(TASKS).where(TASKS.c.graph.is_not(None)).order_by(TASKS.c.number)):
        tasks[row.graph][row.node].append(row)
        ids[row.number] = row.id
    bodies = defaultdict[int, bytes](bytes)
    for row in connection.execute(select(RESULTS).order_by(RESULTS.c.task, RESULTS.c.part)):
        bodies[row.task] += row.body
    results = {ids[number]: json.loads(body) for number, body in bodies.items() if number in ids}
    for row in connection.execute(select(GRAPHS).order_by(GRAPHS.c.number)):
        yield StoredGraph(row, nodes[row.number], edges[row.number], tasks[row.id], results)


def inconsistencies(connection: Connection, changed: Collection[tuple[str, str]] = ()) -> Iterator[str]:
    """Yield what is not as it must be.

    Args:
        connection: Shows one state of the database.
        changed: The nodes that users have asked to retry or to replace, each with the id of its graph first.
    """
    for graph in read_graphs(connection):
        of_graph = {node for graph_id, node in changed if graph_id == graph.row.id}
        problems = [*_of_graph(graph), *_of_edges(graph, of_graph)]
        for node_id in graph.nodes:
            problems += [*_of_node(graph, node_id), *_of_tasks(graph, node_id, of_graph)]
        for node_id in graph.tasks.keys() - graph.nodes.keys():
            left = [task.id for task in graph.tasks[node_id] if task.state in _UNENDED_TASK]
            problems += [f"{node_id} was removed, and has the tasks {left}"] if left else []
        for problem in problems:
            yield f"graph {graph.row.id}: {problem}"


def _of_graph(graph: StoredGraph) -> Iterator[str]:
    """Its counts and its state follow from its nodes."""
    row, counts = graph.row, Counter(node.state for node in graph.nodes.values())
    if json.loads(row.counts) != counts:
        yield f"its nodes are {dict(counts)}, and it has {row.counts}"
    if counts["waiting"] or counts["ready"]:
        state = "running"
    elif row.cancelled is not None:
        state = "cancelled"
    elif not (counts["failed"] or counts["lost"] or counts["cancelled"]):
        state = "completed"
    else:
        state = "partially failed" if counts["completed"] else "failed"
    if (row.state, row.ended is not None) != (state, state != "running"):
        yield f"it is {row.state} and ended at {row.ended}, and its nodes are {dict(counts)}"


def _of_edges(graph: StoredGraph, changed: Collection[str]) -> Iterator[str]:
    """Each end has decided all edges from its node."""
    for edge in graph.edges:
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        expected = _holds(graph, edge) if source.state in ENDED else None
        # What ran when a node somewhere before it was retried keeps its edge.
        kept = changed and edge.holds and graph.tasks.get(target.id)
        if edge.holds is not expected and not kept:
            yield (
                f"{edge.source} is {source.state}, and its edge {edge.when} {edge.condition or ''} to {edge.target} "
                f"({target.state}) holds: {edge.holds}"
            )


def _holds(graph: StoredGraph, edge: Row[Any]) -> bool:
    source = graph.nodes[edge.source]
    if edge.condition is None or source.state != "completed":
        return edge.when in _HOLDS[source.state]
    condition = json.loads(edge.condition)
    result = graph.results[source.task]
    assert isinstance(result, dict)
    return _TESTS[condition["is"]](result[condition["at"].removeprefix("/")], condition["value"])


def _of_node(graph: StoredGraph, node_id: str) -> Iterator[str]:
    """Its state follows from the edges to it."""
    node = graph.nodes[node_id]
    incoming = [edge for edge in graph.edges if edge.target == node_id]
    undecided = sum(edge.holds is None for edge in incoming)
    refused = any(edge.holds is False for edge in incoming)
    if node.undecided != undecided:
        yield f"{node_id} has {undecided} undecided edges, and counts {node.undecided}"
    if node.state == "waiting" and (refused or not undecided):
        yield f"{node_id} waits, and its edges hold: {[edge.holds for edge in incoming]}"
    if node.state == "ready" and (refused or undecided):
        yield f"{node_id} is ready, and its edges hold: {[edge.holds for edge in incoming]}"
    if node.state == "skipped" and not refused:
        yield f"{node_id} was skipped, and its edges hold: {[edge.holds for edge in incoming]}"
    if (node.ended is not None) != (node.state in ENDED):
        yield f"{node_id} is {node.state} and ended at {node.ended}"


def _of_tasks(graph: StoredGraph, node_id: str, changed: Collection[str]) -> Iterator[str]:
    """It has a task while it is ready, none before and after that, and as many attempts as it may have."""
    node, tasks = graph.nodes[node_id], graph.tasks.get(node_id, [])
    unended = [task.id for task in tasks if task.state in _UNENDED_TASK]
    last = next((task for task in tasks if task.id == node.task), None)
    if node.state != "ready" or node.not_before is not None:
        if unended:
            yield f"{node_id} is {node.state} (waits: {node.not_before}), and has the unended tasks {unended}"
    elif last is None or (unended != [last.id] and not (last.state == "lost" and not unended)):
        # A task that is lost by the death of its daemon is followed later.
        yield f"{node_id} is ready, its task is {node.task} ({last and last.state}), and its unended tasks are {unended}"
    elif last.state == "queued" and last.attempt is None:
        # The text of a task that could not be sent, and is queued again, stays.
        yield from _of_text(graph, node_id, last)
    begun = [task for task in tasks if task.started is not None]
    spec = json.loads(node.spec)
    if node.state in ENDED and node.attempt != len(begun):
        yield f"{node_id} has ended after {len(begun)} attempts, and counts {node.attempt}"
    may_repeat = node.state == "failed" or (node.state == "lost" and spec.get("retry_lost"))
    if may_repeat and last is not None and last.started is not None and node.attempt <= spec.get("retries", 0):
        yield f"{node_id} is {node.state} after attempt {node.attempt}, and has {spec.get('retries', 0)} retries"
    if node_id in changed or not begun:
        return
    for task in begun[:-1]:
        if task.state != "failed" and not (task.state == "lost" and spec.get("retry_lost")):
            yield f"{node_id} was tried again after an attempt that was {task.state}"
    if len(begun) > 1 + spec.get("retries", 0):
        yield f"{node_id} had {len(begun)} attempts, and has {spec.get('retries', 0)} retries"
    if node.state == "completed" and last is not None and last.state != "completed":
        yield f"{node_id} is completed, and its last task is {last.state}"


def _of_text(graph: StoredGraph, node_id: str, task: Row[Any]) -> Iterator[str]:
    """The text of a queued task has the request of its node, and the state of each node before it, once that has ended."""
    request = json.loads(graph.nodes[node_id].spec)["request"]
    if request not in task.request:
        yield f"the request of {node_id} is {request!r}, and its text is {task.request!r}"
    for edge in graph.edges:
        source = graph.nodes[edge.source]
        expected = f'{{"task": "{source.id}", "state": "{source.state}"'
        if edge.target == node_id and source.state in ENDED and expected not in task.request:
            yield f"{source.id} is {source.state}, and the text of {node_id} is {task.request!r}"
