"""What the users of graphs were promised, checked when everything has ended."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.daemon.support.graph_consistency import inconsistencies, read_graphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Connection

    from tests.daemon.support.graph_consistency import StoredGraph
    from tests.daemon.support.graph_users import Attempts, GraphUsers


class GraphEvents:
    """What the events of graphs say to a reader of all of them, each once and in order.

    Attributes:
        latest: The latest event of each graph, by its id.
        states: The states of its nodes after all events, by its id.
        broken: The promises that were seen to be broken.
    """

    def __init__(self) -> None:
        self.latest: dict[str, dict[str, Any]] = {}
        self.states = defaultdict[str, dict[str, str]](dict)
        self.broken: list[str] = []

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """Take an event of any kind."""
        if kind != "graph":
            return
        before = self.latest.get(data["id"])
        if before is not None and data["version"] < before["version"]:
            self.broken.append(f"an event with version {data['version']} follows one with {before['version']}")
        self.latest[data["id"]] = data
        self.states[data["id"]] |= data["changed"]

    def problems(self, graph: StoredGraph) -> Iterator[str]:
        """Yield how a graph differs from the events."""
        row, latest = graph.row, self.latest.get(graph.row.id, {})
        if (latest.get("state"), latest.get("version")) != (row.state, row.version):
            yield f"graph {row.id} is {row.state} in version {row.version}, and its last event is {latest}"
        seen = self.states[row.id]
        for node in graph.nodes.values():
            if seen.get(node.id) != node.state:
                yield f"graph {row.id}: {node.id} is {node.state}, and {seen.get(node.id)} by the events"


def broken_graph_promises(
    connection: Connection, users: GraphUsers, attempts: Attempts, observers: Iterable[GraphEvents]
) -> Iterator[str]:
    """Yield the promises that were broken. All faults are over, and no user asks for anything any more."""
    yield from users.broken
    yield from inconsistencies(connection, users.changed)
    graphs = {graph.row.id: graph for graph in read_graphs(connection)}
    keys = {graph_id: graph.row.idempotency_key for graph_id, graph in graphs.items()}
    if keys != {graph_id: name for name, graph_id in users.ids.items()}:
        yield f"the accepted graphs are {users.ids}, and there are {keys}"
    for graph in graphs.values():
        yield from _of_graph(graph, users)
    yield from _of_attempts(graphs, attempts)
    for observer in observers:
        yield from observer.broken
        for graph in graphs.values():
            yield from observer.problems(graph)


def _of_graph(graph: StoredGraph, users: GraphUsers) -> Iterator[str]:
    row = graph.row
    if row.state == "running":
        states = {node.id: node.state for node in graph.nodes.values()}
        yield f"graph {row.id} ({row.idempotency_key}) has not ended: {states}"
    missing = users.accepted[row.id] - graph.nodes.keys() - users.removing[row.id]
    if missing:
        yield f"graph {row.id} has not the nodes {missing} of edits that were accepted"
    if refused := users.refused[row.id] & graph.nodes.keys():
        yield f"graph {row.id} has the nodes {refused} of edits that were refused"
    cancelled = users.cancelled.get(row.id)
    for task in (task for tasks in graph.tasks.values() for task in tasks):
        if cancelled is not None and task.started is not None and task.started > cancelled:
            yield f"graph {row.id}: {task.node} began {task.started - cancelled:.3f} s after the cancellation was over"


def _of_attempts(graphs: Mapping[str, StoredGraph], attempts: Attempts) -> Iterator[str]:
    twice = [task_id for task_id, count in attempts.begun.items() if count > 1]
    if twice:
        yield f"tasks that began twice: {twice}"
    begun = set[str]()
    for graph in graphs.values():
        for task in (task for tasks in graph.tasks.values() for task in tasks):
            if task.started is not None:
                begun.add(task.id)
            if task.state == "completed" and graph.results.get(task.id) != attempts.results.get(task.id, "missing"):
                yield f"task {task.id} has the result {graph.results.get(task.id)}, its device's is {attempts.results.get(task.id)}"
    if unknown := attempts.begun.keys() - begun:
        yield f"tasks that began at a device, and are not known to have begun: {unknown}"
