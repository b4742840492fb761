"""A call that waits for a slot on any device that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from galaxy_trio.constellation.slots import PlaceMoved

if TYPE_CHECKING:
    from galaxy_trio.constellation.device import Device
    from galaxy_trio.constellation.ranked_queue import Rank
    from galaxy_trio.constellation.requirements import Requirements
    from galaxy_trio.constellation.slots import Place, Slot
    from galaxy_trio.constellation.task import Task


class Waiter:
    """A call that waits for a slot on any device that fits.

    Attributes:
        rank: The place of the call among all calls.
        device: The device in whose queue the call waits, if any.
        candidate: A device that fits, or may fit once more is known of it. The call waits while there is one.
    """

    def __init__(self, requirements: Requirements, rank: Rank, task: Task | None, candidate: Device) -> None:
        self.requirements = requirements
        self.rank = rank
        self._task = task
        self.candidate: Device = candidate
        self.device: Device | None = None
        self._place: Place | None = None
        self._assigned = trio.Event()
        self._error: Exception | None = None

    @property
    def can_move(self) -> bool:
        """Whether the call still waits for its slot."""
        return self._error is None and (self._place is None or self._place.waiting)

    @property
    def unassigned(self) -> bool:
        """Whether the call waits in no device's queue."""
        return self.device is None and self._error is None

    async def wait(self) -> tuple[Device, Slot]:
        """Wait for a slot on any device."""
        while True:
            if self._error is not None:
                raise self._error
            if self.device is None or self._place is None:
                self._assigned = trio.Event()
                await self._assigned.wait()
                continue
            device = self.device
            try:
                return device, await self._place.wait()
            except PlaceMoved:
                pass

    def assign(self, device: Device | None, *, may_refuse: bool = True) -> None:
        """Move to the queue of this device; to no queue for None.

        Args:
            device: The device.
            may_refuse: Whether a full queue refuses the call.

        Raises:
            QueueFull: The device's queue is full. Nothing has changed.
        """
        place = None if device is None else device._enter_queue(self.rank, self._task, may_refuse=may_refuse)
        previous, self._place, self.device = self._place, place, device
        self.candidate = device or self.candidate
        if previous is not None:
            previous.move()
        self._assigned.set()

    def fail(self, error: Exception) -> None:
        """Raise this error in the call."""
        self._error = error
        self.assign(None)

    def leave(self) -> None:
        """Leave the queue: the call has ended."""
        if self._place is not None:
            self._place.leave()
