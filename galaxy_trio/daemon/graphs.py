"""The graphs of a daemon: it accepts them, and cancels them with their tasks.

The store advances a graph in the transaction that ends a node's task, whichever daemon ran it. No daemon owns a graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio.daemon.graph_limits import check_requirements, check_size
from galaxy_trio.daemon.refusals import DaemonBusy
from galaxy_trio.errors import GraphTooLarge

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.graph import Graph, GraphEdit
    from galaxy_trio.graph.files.edit_reader import GivenEdit


_MAX_TOGETHER: Final = 2
"""The operations on graphs that may be in one transaction, which must not delay others for long."""


class Graphs:
    """The graphs of a daemon.

    Args:
        store: Has them.
        task_queue: Runs their tasks.
    """

    def __init__(self, store: Store, task_queue: TaskQueue) -> None:
        self._store = store
        self._task_queue = task_queue
        self._turns = trio.CapacityLimiter(_MAX_TOGETHER)

    async def submit(self, graph: Graph, idempotency_key: str | None) -> tuple[GraphRecord, bool]:
        """Accept a graph; it is on disk when this returns. If this is cancelled, it may have been accepted.

        Returns:
            The graph, and whether it is new: a repeated idempotency key returns the first graph.

        Raises:
            GraphTooLarge: It has too many nodes or edges, or begins with too many tasks.
            IdempotencyConflict: The idempotency key belongs to another graph.
            DaemonBusy: Too many tasks are queued, or the daemon is stopping.
            StoreError: It could not be written, and was not accepted. After `UnknownOutcome`, it may turn out to be accepted.
        """
        first = len(graph.nodes) - len({edge.target for edge in graph.edges})
        try:
            check_size(len(graph.edges), graph._size)
            if first > self._task_queue.max_queued:
                raise GraphTooLarge(
                    f"the graph begins with {first:,} tasks, and at most {self._task_queue.max_queued:,} may be queued: "
                    "let some nodes wait for others, or raise max_queued in galaxy.toml"
                )
            await self._task_queue.wait_for_room(first)
        except (DaemonBusy, GraphTooLarge):
            # A client that submits a graph again, because it got no response, must not be refused: its graph was accepted.
            known = await self._store.graphs.accepted(graph, idempotency_key)
            if known is None:
                raise
            return known, False
        async with self._turns:
            return await self._store.graphs.add(graph, idempotency_key)

    async def edit(self, graph_id: str, given: GivenEdit) -> GraphRecord:
        """Change the nodes and edges of a graph: all of an edit, or nothing. See `GraphStore.edit`.

        Raises:
            NoSuchGraph: There is no such graph.
            VersionConflict: The graph has another version. The error has it.
            GraphTooLarge: It would have too many nodes or edges.
            GraphFileError: It would have nodes with too many different requirements.
            GraphError: The edit is invalid.
            DaemonBusy: Too many tasks are queued for the nodes that it adds, or the daemon is stopping.
            StoreError: It could not be written.
        """
        await self._task_queue.wait_for_room(len(given.add))

        def change(edit: GraphEdit) -> None:
            given.apply(edit)
            _, edges, size = edit._totals()
            check_size(edges, size)
            if given.add or given.replace:
                check_requirements(edit._nodes(), "add" if given.add else "replace")

        async with self._turns:
            return await self._store.graphs.edit(graph_id, change, given.version)

    async def retry(self, graph_id: str, node_id: str) -> GraphRecord:
        """Run a node again. See `GraphStore.retry`.

        Raises:
            NoSuchGraph: There is no such graph.
            NoSuchNode: There is no such node.
            NotEditable: It has another state, or one of its edges does not hold.
            DaemonBusy: Too many tasks are queued, or the daemon is stopping.
            StoreError: It could not be written.
        """
        await self._task_queue.wait_for_room()
        async with self._turns:
            return await self._store.graphs.retry(graph_id, node_id)

    async def cancel(self, graph_id: str, node_id: str | None = None) -> GraphRecord:
        """Cancel a graph, or one of its nodes, and wait until the tasks that this daemon runs for it have stopped.

        Returns:
            The graph after that. It still runs while other daemons stop tasks.

        Raises:
            NoSuchGraph: There is no such graph.
            NoSuchNode: There is no such node.
            StoreError: The cancellation could not be written.
        """
        async with self._turns:
            record, running = await self._store.graphs.cancel(graph_id, node_id)
        async with trio.open_nursery() as nursery:
            for task_id in running:
                nursery.start_soon(self._task_queue.cancel_here, task_id)
        return await self._store.graphs.existing(graph_id) if running else record
