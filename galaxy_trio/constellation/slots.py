"""A device's task slots and the queue for them."""

from __future__ import annotations

import itertools
import math
from bisect import insort
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio._counted import counted
from galaxy_trio.constellation.ranked_queue import Rank, RankedQueue
from galaxy_trio.errors import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@attrs.frozen(eq=False)
class Slot:
    """The right to run one task on a device, until `Slots.release`.

    Attributes:
        number: The number of the slot on its device, counted from 0.
    """

    number: int


@attrs.define(eq=False)
class TaskLimit:
    """The slots that are in use on all devices together, and the number of those that may be.

    Attributes:
        size: The largest number; infinity for no limit.
        taken: The number now.
    """

    size: float = math.inf
    taken: int = 0

    @property
    def has_room(self) -> bool:
        """Whether another slot may be granted on any device."""
        return self.taken < self.size


class Lease:
    """A slot that a call or a block holds, with any work that continues after it. The slot is free when all holders have released it.

    Args:
        slots: The device's slots.
        slot: The slot, taken from `slots`.
    """

    def __init__(self, slots: Slots, slot: Slot) -> None:
        self._slots = slots
        self._slot = slot
        self._holders = 1
        self._exclusive = False
        self.ended: bool = False
        """Whether the block has ended."""

    @property
    def slot(self) -> int:
        """The slot's number."""
        return self._slot.number

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Use the slot for one piece of work, which holds it even if the block ends first.

        Raises:
            trio.ClosedResourceError: The block has ended.
            trio.BusyResourceError: Another piece of work uses the slot.
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
        """Hold the slot until one more `release`."""
        self._holders += 1

    def release(self) -> None:
        """Release the slot, once for each `hold`."""
        self._holders -= 1
        if not self._holders:
            self._slots.release(self._slot)

    def end(self) -> None:
        """Release the slot for the block, which has ended."""
        self.ended = True
        self.release()


# A counter instead of a clock, whose ticks may be too coarse to order two events.
_ticks = itertools.count(1)


class PlaceMoved(Exception):
    """The call was moved to the queue of another device."""


class Place:
    """A place in the queue for a slot. Made by `Slots.enter`, which must be followed by `wait` or `leave`."""

    def __init__(self, slots: Slots, rank: Rank) -> None:
        self._slots = slots
        self.rank = rank
        """The rank of its call."""
        self._done = trio.Event()
        self._slot: Slot | None = None
        self._error: Exception | None = None

    @property
    def waiting(self) -> bool:
        """Whether the place is still in the queue."""
        return not self._done.is_set()

    async def wait(self) -> Slot:
        """Wait for the slot. Cancelling leaves the queue.

        Raises:
            PlaceMoved: The call was moved to another queue.
            Exception: The queue was closed, with this error.
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
        """Leave the queue, or release the slot. Does nothing after `wait` has returned."""
        if self._slot is not None:
            # The slot arrived in the step in which the wait was cancelled.
            slot, self._slot = self._slot, None
            self._slots.release(slot)
        elif self.waiting:
            self._done.set()
            self._slots.remove(self)

    def move(self) -> None:
        """Leave the queue, and raise `PlaceMoved` in `wait`."""
        self._error = PlaceMoved()
        self.leave()

    def grant(self, slot: Slot) -> None:
        """Return this slot from `wait`."""
        self._slot = slot
        self._done.set()

    def fail(self, error: Exception) -> None:
        """Raise this error in `wait`."""
        self._error = error
        self._done.set()


class Slots:
    """The slots of a device, and the queue for them. `Grants` grants them while the gate is open.

    Args:
        device_id: The device, for error messages.
        size: The number of slots.
        max_queued: The number of places in the queue; one more is refused.
        limit: Counts the slots in use on all devices together.
        on_change: Called when a place left the queue, a slot was released, or the gate was opened: a slot may be granted. Must not block
            or raise. The caller of `enter` calls it too.
    """

    def __init__(
        self, device_id: str, size: int, max_queued: int, limit: TaskLimit, on_change: Callable[[], None]
    ) -> None:
        self._device_id = device_id
        # The lowest number is granted first: a slot's connections have its number in their names.
        self._free = [Slot(number) for number in reversed(range(size))]
        self._size = size
        self._max_queued = max_queued
        self._limit = limit
        self._on_change = on_change
        self._queue = RankedQueue[Place]()
        self._open = False
        self._idle_since = 0
        self._closed: Callable[[], Exception] | None = None
        self._all_free = trio.Event()

    @property
    def device_id(self) -> str:
        """The device's id."""
        return self._device_id

    @property
    def queued(self) -> int:
        """The number of places in the queue."""
        return len(self._queue)

    @property
    def taken(self) -> int:
        """The number of slots in use."""
        return self._size - len(self._free)

    @property
    def free(self) -> int:
        """The number of free slots."""
        return len(self._free)

    @property
    def busy(self) -> bool:
        """Whether a slot is in use, or will be when the gate is opened."""
        return self.taken > 0 or self.queued > 0

    @property
    def full(self) -> bool:
        """Whether another place in the queue is refused."""
        return self.queued >= self._max_queued

    @property
    def load(self) -> tuple[bool, int, int]:
        """A sort key for devices: idle before busy, then the shortest queue, then the longest idle."""
        return self.busy, self.queued - self.free, self._idle_since

    @property
    def closed(self) -> bool:
        """Whether `enter` is refused."""
        return self._closed is not None

    @property
    def can_grant(self) -> bool:
        """Whether a slot is free, and may be granted."""
        return self._open and self._closed is None and bool(self._free)

    @property
    def first_rank(self) -> Rank | None:
        """The rank of the place that gets the next slot; None for an empty queue."""
        return self._queue.first_rank

    async def wait_all_free(self) -> None:
        """Wait until no slot is in use."""
        await trio.lowlevel.checkpoint()
        while self.taken:
            await self._all_free.wait()

    def enter(self, rank: Rank, *, may_refuse: bool = True) -> Place:
        """Enter the queue, behind all places with a smaller rank.

        Args:
            rank: The rank of the call.
            may_refuse: Whether a full queue refuses it, whatever its rank.

        Raises:
            QueueFull: The queue is full.
            Exception: The queue is closed, with this error.
        """
        if self._closed is not None:
            raise self._closed()
        if may_refuse and self.full:
            raise QueueFull(
                f"the queue of device {self._device_id!r} is full, with {counted(self._max_queued, 'task')}: this one was not taken; "
                "wait for some to end, or raise max_queued"
            )
        place = Place(self, rank)
        self._queue.add(rank, place)
        return place

    def remove(self, place: Place) -> None:
        """Remove a place from the queue. Called by `Place.leave`."""
        self._queue.discard(place.rank, place)
        self._on_change()

    def grant(self) -> None:
        """Grant a slot to the first place, when there is one and `can_grant`."""
        self._limit.taken += 1
        self._queue.pop().grant(self._free.pop())

    def release(self, slot: Slot) -> None:
        """Release a slot."""
        self._limit.taken -= 1
        insort(self._free, slot, key=lambda free: -free.number)
        self._on_change()
        if not self.taken:
            self._idle_since = next(_ticks)
            self._all_free.set()
            self._all_free = trio.Event()

    def open_gate(self) -> None:
        """Let slots be granted from now on."""
        self._open = True
        self._idle_since = next(_ticks)
        self._on_change()

    def shut_gate(self) -> None:
        """Let no slot be granted until the gate is opened again. Places stay in the queue."""
        self._open = False

    def close(self, error: Callable[[], Exception]) -> None:
        """Raise this error in each call that waits, and in each that enters later."""
        self._closed = error
        for place in self._queue:
            place.fail(error())
        self._queue.clear()

    def reopen(self) -> None:
        """Accept calls into the queue again, after `close`."""
        self._closed = None
