"""Claims queued tasks from the database, a few at a time, and fails those that no device can run."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import NoSuchDevice
from galaxy_trio.daemon.store.database import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.requirement_queue import RequirementQueue
    from galaxy_trio.daemon.scheduler import Scheduler
    from galaxy_trio.daemon.store.records import Requirement, TaskRecord
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

_PAGE: Final = 256
"""Tasks that are claimed, or failed, in one transaction; other writes run between two."""


class Backlog:
    """The queued tasks on disk.

    Args:
        store: The tasks.
        scheduler: Gets the claimed tasks.
        constellation: Gives the reason why no device can run a task.
        life: Names this life of the daemon in its claims.
        on_change: Called with each failed task, when the change is on disk. Must not block or raise.
        on_queue_change: Called when the scheduler may have something to do. Must not block or raise.
        retry_delay: Seconds to wait after a failure of the database.
    """

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        constellation: Constellation,
        life: str,
        on_change: Callable[[TaskRecord], None],
        on_queue_change: Callable[[], None],
        retry_delay: float,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._constellation = constellation
        self._life = life
        self._on_change = on_change
        self._on_queue_change = on_queue_change
        self._retry_delay = retry_delay

    async def load(self) -> int:
        """Count the tasks that an earlier daemon left queued, and mark those that it left running as ``lost``. Call it once, first.

        Returns:
            How many are lost.

        Raises:
            StoreError: The database failed.
        """
        lost = await self._store.recover()
        for requirement, count in (await self._store.count_queued()).items():
            self._scheduler.load(requirement, count)
        return lost

    async def claim(self, queue: RequirementQueue) -> None:
        """Claim the first free tasks of a queue; retry while the database fails."""

        def deliver(limit: int, records: list[TaskRecord]) -> None:
            self._scheduler.add_claimed(queue, records, is_last=len(records) < limit)
            self._on_queue_change()

        while True:
            # There is less room if a device has disconnected since.
            limit = min(max(1, queue.room - queue.in_memory), _PAGE)
            try:
                await self._store.claim(queue.requirement, self._life, limit, partial(deliver, limit))
            except StoreError as error:
                logger.error("queued tasks cannot be claimed: %s; retrying", error)  # noqa: TRY400
                await trio.sleep(self._retry_delay)
            else:
                return

    async def return_claims(self, queue: RequirementQueue, records: list[TaskRecord]) -> None:
        """Free tasks of a queue that were claimed; retry while the database fails."""
        while True:
            try:
                await self._store.return_claims(self._life, [record.number for record in records])
            except StoreError as error:
                logger.error("claimed tasks cannot be freed: %s; retrying", error)  # noqa: TRY400
                await trio.sleep(self._retry_delay)
            else:
                break
        self._scheduler.returned(queue)
        self._on_queue_change()

    async def fail_all(self, queue: RequirementQueue) -> None:
        """Fail all tasks of a queue, until a device appears that could run them; retry while the database fails."""

        def deliver(records: list[TaskRecord]) -> None:
            # If a task is accepted after the last page, the scheduler checks the queue again.
            queue.failing = len(records) == _PAGE
            for record in records:
                self._on_change(record)

        while queue.failing:
            reason = await self.reason_to_fail(queue.requirement) if queue.has_no_candidate else None
            if reason is None:
                queue.failing = False
                self._on_queue_change()
                return
            try:
                await self._store.fail_queued(queue.requirement, reason, _PAGE, deliver)
            except StoreError as error:
                logger.error("queued tasks cannot be failed: %s; retrying", error)  # noqa: TRY400
                await trio.sleep(self._retry_delay)

    async def reason_to_fail(self, requirement: Requirement) -> str | None:
        """The reason why no device can run a task; `None` if a device may."""
        if requirement.device is not None:
            await trio.lowlevel.checkpoint()
            device = self._constellation.devices.get(requirement.device)
            if device is None:
                return f"device {requirement.device!r} was removed"
            return None if device.failure is None else str(device.failure)
        try:
            # `reserve` raises before it waits if no device can fit, and its message names what is missing.
            with trio.CancelScope() as scope:
                scope.cancel()
                async with self._constellation.reserve(os=requirement.os, capabilities=requirement.capabilities):
                    pass
        except NoSuchDevice as error:
            return str(error)
        return None
