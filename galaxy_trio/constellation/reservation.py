"""A slot that a block reserves on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from galaxy_trio.constellation.task import BeforeSending, NotSentCallback, OnCancel, make_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from galaxy_trio.constellation.slots import Lease
    from galaxy_trio.constellation.task import Task
    from galaxy_trio.messages import TaskResult


class Reservation:
    """A slot on a device, held until the block ends. Made by `Device.reserve` and `Constellation.reserve`."""

    def __init__(
        self, device_id: str, lease: Lease, run_in_slot: Callable[[Task, Lease], Awaitable[TaskResult]]
    ) -> None:
        self._device_id = device_id
        self._lease = lease
        self._run_in_slot = run_in_slot

    def __repr__(self) -> str:
        return f"<Reservation of device {self.device_id!r}{', ended' if self._lease.ended else ''}>"

    @property
    def device_id(self) -> str:
        """The id of the device."""
        return self._device_id

    async def run_task(
        self,
        request: str,
        *,
        timeout: float = 1000.0,
        task_id: str | None = None,
        on_cancel: OnCancel = "stop",
        before_sending: BeforeSending | None = None,
        on_not_sent: NotSentCallback | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Run a task in this slot, one at a time. Arguments, result and errors are those of `Device.run_task`.

        Raises:
            trio.BusyResourceError: Another task runs in the slot.
            trio.ClosedResourceError: The block has ended.
        """
        task = make_task(request, 0, timeout, task_id, on_cancel, before_sending, on_not_sent, task_status)
        return await self._run_in_slot(task, self._lease)
