"""Edits of stored graphs. All rows of the graph are read, so that the edit follows the rules of a graph in memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from galaxy_trio.daemon.store.graph_documents import check_additions, read_edges, read_nodes, stored_edge
from galaxy_trio.daemon.store.graph_ends import NOTHING_MET
from galaxy_trio.daemon.store.graph_records import with_running
from galaxy_trio.daemon.store.graph_rows import StoredNode
from galaxy_trio.daemon.store.graph_steps import prepare
from galaxy_trio.daemon.store.graphs import GraphRefused, locked
from galaxy_trio.daemon.store.queries import ignore
from galaxy_trio.errors import GraphError, VersionConflict
from galaxy_trio.graph.edit import GraphEdit
from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables
from galaxy_trio.graph.state_machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.graph_rows import StoredTables
    from galaxy_trio.daemon.store.graph_steps import GraphStep
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.graph.edit import Edited
    from galaxy_trio.graph.model import Edge, Node


def edit(
    transaction: Transaction,
    graph_id: str,
    change: Callable[[GraphEdit], None],
    version: int | None = None,
    *,
    met: Mapping[tuple[str, str], bool] = NOTHING_MET,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
) -> GraphRecord:
    """Change the nodes and edges of a graph: all of an edit, or nothing.

    Args:
        transaction: What it runs in.
        graph_id: The graph.
        change: Receives a `GraphEdit`, and calls its methods. It may be called several times, in a worker thread.
        version: Refuse the edit if the graph has another version.
        met: As that of `graph_ends.finish`: the conditions of new edges from nodes that have completed.
        deliver: Called with the tasks that are added or cancelled because of this, on commit.

    Returns:
        The graph, with a new version unless the edit changes nothing.

    Raises:
        NoSuchGraph: There is no such graph.
        GraphRefused: The graph has another version, or the edit is invalid.
        ConditionsNeeded: Conditions on results must be evaluated first.
    """
    record = locked(transaction, graph_id)
    if version is not None and version != record.version:
        message = f"the graph has version {record.version}, not {version}: look at it again"
        raise GraphRefused(VersionConflict(message, version=record.version))
    nodes = read_nodes(transaction.connection, record.number)
    edges = read_edges(transaction.connection, record.number)

    def change_step(step: GraphStep) -> None:
        try:
            _edit(step, _in_memory(step, nodes, edges), change)
        except GraphError as error:
            raise GraphRefused(error) from None

    step = prepare(transaction, record, met, change_step)
    edited = step.write(deliver) if step.record.version != record.version else record
    return with_running(transaction.connection, [edited])[0]


def _edit(step: GraphStep, memory: MemoryTables, change: Callable[[GraphEdit], None]) -> None:
    stored = step.tables
    before = dict(memory.edges)
    machine = StateMachine[LiveNode, LiveEdge](memory, _is_met_before)
    collected = GraphEdit(memory, partial(_is_met, step, stored))
    change(collected)
    edited = collected._apply(machine)
    if edited is None:
        return
    _take_over(stored, memory, before, edited)
    for state, moved in machine.moved.items():
        step.moved[state] += moved
    step.apply(edited.changes)
    step.renew(edited.outdated)
    step.record = attrs.evolve(
        step.record,
        version=step.record.version + 1,
        size=memory.size,
        cancelled=None if edited.added else step.record.cancelled,
    )


def _in_memory(step: GraphStep, nodes: Sequence[Node], edges: Sequence[Edge]) -> MemoryTables:
    stored, memory = step.tables, MemoryTables()
    stored.read_all()
    memory.size = step.record.size
    for spec in nodes:
        row, node = stored.nodes[spec.id], memory.add_node(spec)
        node.state, node.undecided, node.attempt = row.state, row.undecided, row.attempt
    for edge in memory.add_edges(edges):
        edge.holds = stored.edges[edge.id].holds
    return memory


def _is_met_before(edge: LiveEdge) -> bool:
    """The conditions of new edges from nodes that have ended are evaluated before they are added; no node ends by an edit."""
    return bool(edge.met)


def _is_met(step: GraphStep, stored: StoredTables, edge: Edge, source: LiveNode) -> bool:
    row, _ = stored_edge(edge, 0)
    task_id = stored.nodes[source.id].task
    return task_id is not None and row.condition is not None and step.is_met(task_id, row.condition)


def _take_over(stored: StoredTables, memory: MemoryTables, before: Mapping[str, LiveEdge], edited: Edited) -> None:
    """Change the stored rows as those in memory were changed."""
    new_edges = [edge for edge_id, edge in memory.edges.items() if before.get(edge_id) is not edge]
    specs = [memory.node(node_id).spec for node_id in (*edited.added, *edited.replaced)]
    texts = check_additions(specs, [edge.spec for edge in new_edges])
    added = set(edited.added)
    first_node = 1 + max((node.number for node in stored.nodes.values()), default=-1)
    first_edge = 1 + max((edge.number for edge in stored.edges.values()), default=-1)
    for edge_id, edge in before.items():
        if memory.edges.get(edge_id) is not edge:
            stored.remove_edge(edge_id)
    for node_id in [node_id for node_id in stored.nodes if node_id not in memory.nodes or node_id in added]:
        stored.remove_node(node_id)
    for number, node_id in enumerate(edited.added, first_node):
        stored.add_node(StoredNode(node_id, number=number), texts[node_id])
    for node_id in edited.replaced:
        stored.replace_node(node_id, texts[node_id])
    for node in memory.nodes.values():
        row = stored.nodes[node.id]
        row.state, row.undecided = node.state, node.undecided
    for number, edge in enumerate(new_edges, first_edge):
        stored.add_edge(*stored_edge(edge.spec, number))
    for edge in memory.edges.values():
        stored.edges[edge.id].holds = edge.holds
