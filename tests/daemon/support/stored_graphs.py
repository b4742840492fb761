"""Runs the tasks of stored graphs as daemons do."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from galaxy_trio.daemon.store.queries import mark_running
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import GRAPH_NODES, GRAPHS, TASKS
from galaxy_trio.graph.model import Edge, Graph, Node
from tests.daemon.support.lives import transaction_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store


def chain(*ids: str) -> Graph:
    """A graph of nodes that run one after the other."""
    nodes = [Node(node_id, f"do {node_id}") for node_id in ids]
    return Graph(nodes, [Edge(*pair) for pair in pairwise(ids)])


async def states_of(store: Store, graph_id: str) -> dict[str, str]:
    """The states of a graph's nodes, by id."""
    snapshot = await store.graphs.snapshot(graph_id, with_results=False)
    return {node.id: snapshot.node(node.id).state.value for node in snapshot.graph.nodes}


def task_ids_in(connection: Connection, graph_id: str) -> dict[str, str]:
    """The id of each node's latest task, by node."""
    query = select(GRAPH_NODES.c.id, GRAPH_NODES.c.task).join(GRAPHS, GRAPHS.c.number == GRAPH_NODES.c.graph)
    rows = connection.execute(query.where(GRAPHS.c.id == graph_id, GRAPH_NODES.c.task.is_not(None)))
    return {row.id: row.task for row in rows}


def begin_in(connection: Connection, graph_id: str, node_id: str) -> str:
    """Begin the task of a node that is ready, as the life ``life`` does. Its attempt is named like the task, whose id is returned."""
    task_id = task_ids_in(connection, graph_id)[node_id]
    connection.execute(update(TASKS).where(TASKS.c.id == task_id).values(claimed_by="life"))
    mark_running(transaction_on(connection), task_id, "d1", task_id, "life")
    return task_id


async def task_ids(store: Store, graph_id: str) -> Mapping[str, str]:
    return await store.read(lambda connection: task_ids_in(connection, graph_id))


async def begin(store: Store, graph_id: str, node_id: str, device: str = "d1") -> TaskRecord:
    """Begin the task of a node that is ready, as this store's daemon does."""
    task_id = (await task_ids(store, graph_id))[node_id]
    record = await store.existing(task_id)
    await store.claim(record.asked.requirement, store.life, 1_000)
    return await store.mark_running(task_id, device, f"attempt of {task_id}", store.life)


async def end(
    store: Store, graph_id: str, node_id: str, state: TaskState = TaskState.COMPLETED, **more: object
) -> TaskRecord:
    """End the running task of a node."""
    task_id = (await task_ids(store, graph_id))[node_id]
    return await store.finish(task_id, f"attempt of {task_id}", store.life, state, **more)  # type: ignore[arg-type]


async def run(
    store: Store, graph_id: str, node_id: str, state: TaskState = TaskState.COMPLETED, **more: object
) -> TaskRecord:
    """Begin the task of a node that is ready, and end it."""
    await begin(store, graph_id, node_id)
    return await end(store, graph_id, node_id, state, **more)


async def requests_of(store: Store, graph_id: str) -> dict[str, str]:
    """The texts of the queued tasks of a graph, by node."""

    def read(connection: Connection) -> dict[str, str]:
        query = select(TASKS.c.node, TASKS.c.request).where(TASKS.c.graph == graph_id)
        rows = connection.execute(query.where(TASKS.c.state == TaskState.QUEUED.value))
        return {row.node: row.request for row in rows}

    return await store.read(read)
