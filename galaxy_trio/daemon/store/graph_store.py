"""The graphs of a store: the operations on them, with the errors of graphs and the conditions that they need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio.daemon.store import graph_deletion, graph_edits, graph_ends, graph_snapshots, graphs, queries
from galaxy_trio.daemon.store.graph_conditions import with_conditions
from galaxy_trio.daemon.store.graph_documents import encode_graph
from galaxy_trio.daemon.store.graphs import GraphRefused
from galaxy_trio.daemon.store.queries import ignore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.graph_records import GraphRecord
    from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskState
    from galaxy_trio.graph.edit import GraphEdit
    from galaxy_trio.graph.model import Graph
    from galaxy_trio.graph.snapshot import GraphSnapshot, GraphState

    Deliver = Callable[[list[TaskRecord]], None]

T = TypeVar("T")

_encoders: Final = ThreadLimit("encoding graphs", 2)


class TaskStore(Protocol):
    """What graphs need of the store of their tasks."""

    async def write(
        self,
        operation: Callable[[Transaction], T],
        *,
        only_reads: bool = False,
        takes: bool = False,
        changes: str | None = None,
    ) -> T:
        """Run an operation in a transaction; its changes are on disk when this returns."""
        ...

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation that only reads."""
        ...

    def read_result(self, task_id: str) -> AsyncGenerator[bytes]:
        """Yield a result as JSON, in pieces."""
        ...


class GraphStore:
    """The graphs of a store. Its methods raise `StoreError` as those of the store do, and cancelling them is as safe."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self.on_tasks: Deliver = ignore
        """Called on commit with the tasks that an operation has added, free, or cancelled while they were queued, because of a graph. It
        must not block or raise. Set it before the first operation."""
        self.on_cancel: Callable[[list[str]], None] = ignore
        """Called on commit with the ids of running tasks that are to be stopped, in the same way."""

    def _stop(self, task_ids: list[str]) -> None:
        self.on_cancel(task_ids)

    def _deliver(self, records: list[TaskRecord]) -> None:
        self.on_tasks(records)

    async def add(self, graph: Graph, idempotency_key: str | None = None) -> tuple[GraphRecord, bool]:
        """Add a graph, and the tasks of the nodes that wait for no others.

        Returns:
            The graph, and whether it is new: the same idempotency key returns the first graph, whatever its state.

        Raises:
            GraphFileError: The graph has functions, or data that is not JSON.
            IdempotencyConflict: The key belongs to a graph that was another one when it was accepted.
        """
        new = await trio.to_thread.run_sync(encode_graph, graph, limiter=_encoders.get())
        operation = partial(graphs.add, graph=new, idempotency_key=idempotency_key, deliver=self._deliver)
        return await self._store.write(operation, takes=True)

    async def accepted(self, graph: Graph, idempotency_key: str | None) -> GraphRecord | None:
        """The graph that was accepted with an idempotency key, or `None`.

        Raises:
            GraphFileError: The graph has functions, or data that is not JSON.
            IdempotencyConflict: The key belongs to a graph that was another one when it was accepted.
        """
        new = await trio.to_thread.run_sync(encode_graph, graph, limiter=_encoders.get())
        return await self._store.read(partial(graphs.accepted, idempotency_key=idempotency_key, digest=new.digest))

    async def existing(self, graph_id: str) -> GraphRecord:
        """A graph.

        Raises:
            NoSuchGraph: There is no such graph.
        """
        return await self._store.read(partial(graphs.existing, graph_id=graph_id))

    async def page(
        self, *, state: GraphState | None = None, limit: int = 100, before: str | None = None
    ) -> list[GraphRecord]:
        """A page of graphs; see `graphs.page`."""
        return await self._store.read(partial(graphs.page, state=state, limit=limit, before=before))

    async def snapshot(self, graph_id: str, *, with_results: bool = True) -> GraphSnapshot:
        """A graph with all that is known of its nodes; see `whole`.

        Raises:
            NoSuchGraph: There is no such graph.
            GraphTooLarge: The results have too many bytes together.
        """
        return (await self.whole(graph_id, with_results=with_results))[1]

    async def whole(self, graph_id: str, *, with_results: bool) -> tuple[GraphRecord, GraphSnapshot]:
        """A graph, and all that is known of its nodes at the same moment.

        Raises:
            NoSuchGraph: There is no such graph.
            GraphTooLarge: The results have too many bytes together.
        """
        read = partial(graph_snapshots.whole, graph_id=graph_id, with_results=with_results)
        try:
            return await self._store.read(read)
        except GraphRefused as refusal:
            raise refusal.error from None

    async def cancel(self, graph_id: str, node_id: str | None = None) -> tuple[GraphRecord, list[str]]:
        """Cancel a graph, or one of its nodes; see `graphs.cancel`.

        Returns:
            The graph, and the ids of the running tasks, which are stopped.

        Raises:
            NoSuchGraph: There is no such graph.
            NoSuchNode: There is no such node.
        """
        operation = partial(graphs.cancel, graph_id=graph_id, node_id=node_id, deliver=self._deliver, stop=self._stop)
        return await self._change(graph_id, operation)

    async def retry(self, graph_id: str, node_id: str) -> GraphRecord:
        """Run a node again that failed, was lost or was cancelled. Nodes that were skipped through it wait again.

        Raises:
            NoSuchGraph: There is no such graph.
            NoSuchNode: There is no such node.
            NotEditable: It has another state, or one of its edges does not hold.
        """
        operation = partial(graphs.retry_node, graph_id=graph_id, node_id=node_id, deliver=self._deliver)
        return await self._change(graph_id, operation)

    async def edit(
        self,
        graph_id: str,
        change: Callable[[GraphEdit], None],
        version: int | None = None,
    ) -> GraphRecord:
        """Change the nodes and edges of a graph: all of an edit, or nothing.

        Args:
            graph_id: The graph.
            change: Receives a `GraphEdit`, and calls its methods. It may be called several times, in a worker thread.
            version: Refuse the edit if the graph has another version.

        Returns:
            The graph, with a new version unless the edit changes nothing.

        Raises:
            NoSuchGraph: There is no such graph.
            VersionConflict: The graph has another version. The error has it.
            GraphError: The edit is invalid.
        """

        async def edit(met: Mapping[tuple[str, str], bool]) -> GraphRecord:
            operation = partial(graph_edits.edit, graph_id=graph_id, change=change, version=version)
            return await self._change(graph_id, partial(operation, met=met, deliver=self._deliver))

        return await with_conditions(edit, self._result)

    async def finish(
        self,
        task_id: str,
        attempt: str,
        claimed_by: str,
        state: TaskState,
        *,
        error: str | None = None,
        result: str | None = None,
        has_graph: bool = True,
    ) -> TaskRecord:
        """Change a task to a final state, and let its graph follow; see `graph_ends.finish`.

        If the task is known to have no graph, `has_graph` is false, and none is looked for.

        Raises:
            WrongState: It has ended already, another attempt runs it, or this life has not claimed it.
        """
        if not has_graph:
            return await self._store.write(
                partial(
                    queries.finish,
                    task_id=task_id,
                    attempt=attempt,
                    claimed_by=claimed_by,
                    state=state,
                    error=error,
                    result=result,
                )
            )

        async def finish(met: Mapping[tuple[str, str], bool]) -> TaskRecord:
            operation = partial(graph_ends.finish, task_id=task_id, attempt=attempt, claimed_by=claimed_by, state=state)
            end = partial(operation, error=error, result=result, met=met, deliver=self._deliver)
            return await self._store.write(end, changes=task_id)

        async def known_result(_task_id: str) -> str | None:
            await trio.lowlevel.checkpoint()
            return result

        return await with_conditions(finish, known_result)

    async def mark_queued(self, task_id: str, attempt: str, *, has_graph: bool = True) -> TaskRecord:
        """Change a task from `running` back to `queued`; see `graph_ends.mark_queued`.

        If the task is known to have no graph, `has_graph` is false, and none is looked for.

        Raises:
            NodeStopped: Its node was cancelled while it ran.
            WrongState: The attempt does not run it.
        """
        operation = graph_ends.mark_queued if has_graph else queries.mark_queued
        changes = task_id if has_graph else None
        return await self._store.write(partial(operation, task_id=task_id, attempt=attempt), changes=changes)

    async def cancel_queued(
        self, task_id: str, deliver: Callable[[TaskRecord], None] = ignore
    ) -> tuple[TaskRecord, bool]:
        """Change a task from `queued` to `cancelled`, and let its graph follow; see `queries.cancel_queued`."""
        operation = partial(graph_ends.cancel_queued, task_id=task_id, deliver=deliver)
        return await self._store.write(partial(operation, deliver_others=self._deliver), changes=task_id)

    async def fail_queued(
        self, requirement: Requirement, error: str, limit: int, deliver: Deliver = ignore
    ) -> list[TaskRecord]:
        """Change the first queued tasks with a requirement to `failed`, and let their graphs follow; see `queries.fail_queued`."""
        operation = partial(graph_ends.fail_queued, requirement=requirement, error=error, limit=limit, deliver=deliver)
        return await self._store.write(partial(operation, deliver_others=self._deliver))

    async def sweep(self) -> int:
        """Let graphs follow the ends of tasks that they have not followed, a graph at a time.

        Call it after a takeover, at the start and at long intervals: it looks at all nodes that are ready.

        Returns:
            The number of graphs.
        """
        return await self._sweep_all(graph_ends.find_unfollowed)

    async def try_delayed(self, now: datetime) -> int:
        """Try nodes again that have waited until a time, a graph at a time. Call it at short intervals.

        Returns:
            The number of graphs.
        """
        return await self._sweep_all(partial(graph_ends.find_delayed, now=now))

    async def _sweep_all(self, find: Callable[[Connection], str | None]) -> int:
        swept = 0
        # Unlike a write, looking for them delays no others.
        while (graph_id := await self._store.read(find)) is not None:

            async def sweep(met: Mapping[tuple[str, str], bool], graph_id: str = graph_id) -> bool:
                operation = partial(graph_ends.sweep, graph_id=graph_id, met=met, deliver=self._deliver)
                return await self._store.write(operation, changes=graph_id)

            if not await with_conditions(sweep, self._result):
                # Another daemon was faster, or the clock has been set back: it is looked for again later.
                break
            swept += 1
        return swept

    async def delete_old(self, older_than: datetime, keep: int) -> int:
        """Delete the old graphs with their tasks, a part at a time; see `graph_deletion.delete_part`.

        Returns:
            How many tasks were deleted.
        """
        deleted = 0
        while await self._store.read(partial(graph_deletion.has_old_graph, older_than=older_than, keep=keep)):
            part = await self._store.write(partial(graph_deletion.delete_part, older_than=older_than, keep=keep))
            if part is None:
                # Another daemon is deleting them. What is left is looked for again later.
                break
            deleted += part
        return deleted

    async def _change(self, graph_id: str, operation: Callable[[Transaction], T]) -> T:
        try:
            return await self._store.write(operation, changes=graph_id)
        except GraphRefused as refusal:
            raise refusal.error from None

    async def _result(self, task_id: str) -> str | None:
        pieces = [piece async for piece in self._store.read_result(task_id)]
        return b"".join(pieces).decode("ascii") or None
