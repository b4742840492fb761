"""Claims queued tasks from the database, a few at a time, gives claims back, and fails the tasks that no device can run."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import ConfigError
from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.database import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.daemon.directory import Directory
    from galaxy_trio.daemon.requirement_queue import RequirementQueue
    from galaxy_trio.daemon.scheduler import Scheduler
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

_REPORT_TIME: Final = 1.0
"""Seconds after which another daemon has certainly reported what it knows of its devices, unless the database is away."""
_PAGE: Final = 256
"""Tasks that are claimed, or failed, in one transaction; other writes run between two."""


class Backlog:
    """The queued tasks in the database.

    Args:
        store: The tasks.
        scheduler: Gets the claimed tasks.
        directory: Gives the reason why no device can run a task.
        life: Claims the tasks.
        on_change: Called with each failed task, when the change is on disk. Must not block or raise.
        on_queue_change: Called when the scheduler may have something to do. Must not block or raise.
        retry_delay: Seconds to wait after a failure of the database.
    """

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        directory: Directory,
        life: str,
        on_change: Callable[[TaskRecord], None],
        on_queue_change: Callable[[], None],
        retry_delay: float,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._directory = directory
        self._life = life
        self._on_change = on_change
        self._on_queue_change = on_queue_change
        self._retry_delay = retry_delay

    async def change_claims(self, queue: RequirementQueue) -> None:
        """Give back the claims of a queue that exceed its room, or claim its first free tasks; retry while the database fails."""

        def deliver(limit: int, records: list[TaskRecord]) -> None:
            self._scheduler.add_claimed(queue, records, is_last=len(records) < limit)
            self._on_queue_change()

        surplus = [record.number for record in queue.take_surplus()]
        # There is no room if the device has disconnected since.
        while limit := len(surplus) or min(queue.room_to_claim, _PAGE):
            try:
                if surplus:
                    await self._store.return_claims(self._life, surplus)
                else:
                    await self._store.claim(queue.requirement, self._life, limit, partial(deliver, limit))
                break
            except (StoreError, LifeOver) as error:
                # If this life is over, all of this is cancelled soon.
                logger.error("the claims of queued tasks cannot be changed: %s; retrying", error)  # noqa: TRY400  # a sentence, without a traceback
                await trio.sleep(self._retry_delay)
        self._scheduler.end_change(queue)
        self._on_queue_change()

    async def _refresh(self) -> None:
        """Let the directory know what the daemon that has accepted a task knows of its devices."""
        if self._store.is_shared:
            await trio.sleep(_REPORT_TIME)
            try:
                await self._directory.refresh()
            except (StoreError, ConfigError) as error:
                logger.error("queued tasks cannot be failed: %s; retrying", error)  # noqa: TRY400  # a sentence, without a traceback
                await trio.sleep(self._retry_delay)

    async def fail_all(self, queue: RequirementQueue) -> None:
        """Fail all tasks of a queue, until a device appears that could run them; retry while the database fails."""

        def deliver(records: list[TaskRecord]) -> None:
            # If a task is accepted after the last page, the scheduler checks the queue again.
            queue.failing = len(records) == _PAGE
            for record in records:
                self._on_change(record)

        while queue.failing:
            await self._refresh()
            reason = self._directory.reason_to_fail(queue.requirement) if queue.has_no_candidate else None
            if reason is None:
                queue.failing = False
                self._on_queue_change()
                return
            try:
                await self._store.fail_queued(queue.requirement, reason, _PAGE, deliver)
            except StoreError as error:
                logger.error("queued tasks cannot be failed: %s; retrying", error)  # noqa: TRY400  # a sentence, without a traceback
                await trio.sleep(self._retry_delay)


async def return_all_claims(store: Store, life: str) -> None:
    """Free the tasks that a life of the daemon has claimed and that have not begun."""
    try:
        await store.return_all_claims(life)
    except StoreError as error:
        logger.warning("queued tasks stay claimed until the end of this daemon: %s", error)
