"""Calls that wait for the ends of tasks, whichever daemon writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store


class EndWaiters:
    """Waits for the ends of tasks.

    Args:
        store: The tasks.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # An event for each pending `wait`, by the task's id; the call removes it.
        self._ended: dict[str, set[trio.Event]] = {}

    def wake(self, task_id: str) -> None:
        """End the calls that wait for a task, which has ended."""
        for ended in self._ended.get(task_id, ()):
            ended.set()

    async def wait(self, task_id: str, deadline: float) -> TaskRecord:
        """Wait for the end of a task, until a time of trio's clock. Returns the task, ended or not.

        Raises:
            NoSuchTask: There is no such task.
            StoreError: The database failed.
        """
        ended = trio.Event()
        # Registered before the task is read, so that an end in between is not missed.
        self._ended.setdefault(task_id, set()).add(ended)
        try:
            record = await self._store.existing(task_id)
            if record.state.ended or trio.current_time() >= deadline:
                return record
            with trio.move_on_at(deadline):
                await ended.wait()
        finally:
            self._ended[task_id].discard(ended)
            if not self._ended[task_id]:
                del self._ended[task_id]
        return await self._store.existing(task_id)
