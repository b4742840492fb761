"""Who runs a task on a device now, and who waits for it: first come, first served."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio.errors import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from galaxy_trio._concurrency.cancel_group import CancelGroup


@attrs.frozen(eq=False)
class Slot:
    """The right to run one task on a device. Given back with `Slots.release`.

    Attributes:
        number: Which of the device's slots, counted from 0.
    """

    number: int


class Lease:
    """The holder of a slot: a call or a block, and what continues after it. The slot is free when all of them have released it.

    Args:
        slots: Which the slot belongs to.
        slot: Given out by `slots`.
        total: A limit of the leases of all devices together, acquired on behalf of this one.
    """

    def __init__(self, slots: Slots, slot: Slot, total: trio.CapacityLimiter | None) -> None:
        self._slots = slots
        self._slot = slot
        self._total = total
        self._holders = 1
        self._exclusive = False
        self.ended: bool = False
        """Whether its block has ended."""

    @property
    def slot(self) -> int:
        """The slot's number."""
        return self._slot.number

    async def acquire(self, waiting: CancelGroup) -> None:
        """Wait until the limit of all devices together has room. If that fails, or is cancelled, the slot is released.

        Args:
            waiting: Ends the wait.
        """
        if self._total is not None:
            try:
                with waiting.guard():
                    await self._total.acquire_on_behalf_of(self)
            except BaseException:
                self._slots.release(self._slot)
                raise

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Use the slot for one piece of work, which keeps it even if the block ends first.

        Raises:
            trio.ClosedResourceError: The block has ended.
            trio.BusyResourceError: Another piece of work uses it.
        """
        if self.ended:
            raise trio.ClosedResourceError(f"the reservation of device {self._slots.device_id!r} has ended")
        if self._exclusive:
            raise trio.BusyResourceError("a reservation runs one task at a time: reserve another slot")
        self._exclusive = True
        self.hold()
        try:
            yield
        finally:
            self._exclusive = False
            self.release()

    def hold(self) -> None:
        """Keep the slot until one more `release`."""
        self._holders += 1

    def release(self) -> None:
        """Release the slot, once for each `hold`."""
        self._holders -= 1
        if not self._holders:
            if self._total is not None:
                self._total.release_on_behalf_of(self)
            self._slots.release(self._slot)

    def end(self) -> None:
        """Release it for the block."""
        self.ended = True
        self.release()


class Moved(Exception):
    """A place in a queue was given up for one elsewhere."""


class Place:
    """A place in the queue for a slot. Made by `Slots.enter`; whoever has it must `wait`, or `leave`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._done = trio.Event()
        self._slot: Slot | None = None
        self._error: Exception | None = None

    @property
    def waiting(self) -> bool:
        """Whether its turn is still to come."""
        return not self._done.is_set()

    async def wait(self) -> Slot:
        """Wait for the slot. Cancelling leaves the queue.

        Raises:
            Moved: It was moved.
            Exception: What the queue was closed with.
        """
        if self._slot is None:
            try:
                await self._done.wait()
            except BaseException:
                self.leave()
                raise
        slot, self._slot = self._slot, None
        if slot is None:
            raise self._error or trio.ClosedResourceError("this place in the queue was left")
        return slot

    def leave(self) -> None:
        """Leave the queue. Does nothing when there is nothing to leave."""
        if self._slot is not None:
            # It was given a slot in the step in which it was cancelled.
            slot, self._slot = self._slot, None
            self._slots.release(slot)
        elif self.waiting:
            self._done.set()
            self._slots.remove(self)

    def move(self) -> None:
        """Leave the queue for another; who waits here is told `Moved`."""
        self._error = Moved()
        self.leave()

    def give(self, slot: Slot) -> None:
        """Its turn has come."""
        self._slot = slot
        self._done.set()

    def turn_away(self, error: Exception) -> None:
        """There is no slot for it."""
        self._error = error
        self._done.set()


# A counter instead of a clock, whose ticks may be too coarse to order two events.
_ticks = itertools.count(1)


class Slots:
    """The slots of a device, and the queue for them. They are given out only while the gate is open.

    Args:
        device_id: Whose they are, for error messages.
        size: How many there are.
        max_queued: How many may wait; one more is refused.
        on_change: Called when somebody has left the queue, or a slot was given back, and perhaps given out again. Must not block or raise.
    """

    def __init__(self, device_id: str, size: int, max_queued: int, on_change: Callable[[], None]) -> None:
        self._device_id = device_id
        # The lowest comes first: a slot's connections have its number in their name.
        self._free = [Slot(number) for number in reversed(range(size))]
        self._size = size
        self._max_queued = max_queued
        self._on_change = on_change
        # Ordered, and one can leave from the middle.
        self._queue: dict[Place, None] = {}
        self._open = False
        self._idle_since = 0
        self._closed: Callable[[], Exception] | None = None
        self._all_free = trio.Event()

    @property
    def device_id(self) -> str:
        """Whose they are."""
        return self._device_id

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    @property
    def taken(self) -> int:
        """How many slots are given out."""
        return self._size - len(self._free)

    @property
    def free(self) -> int:
        """How many slots are not given out."""
        return len(self._free)

    @property
    def load(self) -> tuple[bool, int, int]:
        """A key that sorts devices: idle before busy, then the shortest queue, then the longest idle."""
        return self.taken > 0, self.queued - self.free, self._idle_since

    @property
    def closed(self) -> bool:
        """Whether nobody is taken into the queue."""
        return self._closed is not None

    async def wait_all_free(self) -> None:
        """Wait until no slot is given out."""
        await trio.lowlevel.checkpoint()
        while self.taken:
            await self._all_free.wait()

    def enter(self) -> Place:
        """Take a place in the queue; its turn may have come at once.

        Raises:
            QueueFull: Too many wait already.
            Exception: What `close` was given.
        """
        if self._closed is not None:
            raise self._closed()
        place = Place(self)
        self._queue[place] = None
        self._give_out()
        if len(self._queue) > self._max_queued:
            del self._queue[place]
            raise QueueFull(
                f"{self._max_queued} tasks wait for device {self._device_id!r} already: this one was not taken; "
                "wait for some to end, or raise max_queued"
            )
        return place

    def remove(self, place: Place) -> None:
        """Somebody leaves the queue: called by `Place.leave`."""
        del self._queue[place]
        self._on_change()

    def release(self, slot: Slot) -> None:
        """Give a slot back; the first in the queue gets it."""
        self._free.append(slot)
        self._free.sort(key=lambda free: -free.number)
        self._give_out()
        if not self.taken:
            self._idle_since = next(_ticks)
            self._all_free.set()
            self._all_free = trio.Event()
        self._on_change()

    def open_gate(self) -> None:
        """Give out slots from now on."""
        self._open = True
        self._idle_since = next(_ticks)
        self._give_out()

    def shut_gate(self) -> None:
        """Give out no slots until the gate is open again. Who waits goes on waiting."""
        self._open = False

    def close(self, error: Callable[[], Exception]) -> None:
        """Give out no slots any more: who waits is told this error, and so is who comes later."""
        self._closed = error
        for place in self._queue:
            place.turn_away(error())
        self._queue.clear()

    def reopen(self) -> None:
        """Take people into the queue again, after `close`."""
        self._closed = None

    def _give_out(self) -> None:
        while self._open and self._free and self._queue:
            place = next(iter(self._queue))
            del self._queue[place]
            place.give(self._free.pop())
