"""Grants free slots: the one place that decides which of the waiting calls is next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.constellation.ranked_queue import RankedQueue
from galaxy_trio.constellation.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from galaxy_trio.constellation.ranked_queue import Rank
    from galaxy_trio.constellation.slots import TaskLimit


class Grants:
    """Grants free slots, one at a time, within the limit of all devices together.

    A slot and room within the limit are taken together: no call has one of them while it waits for the other. Of the calls in the queues
    of devices that have a free slot, the first by rank is next. A call in another queue that has a higher priority, and could use one of
    these slots, comes before it.

    Args:
        limit: Counts the slots in use on all devices together.
        bring: Called with the rank of the next call, if there is one, and the devices that had a free slot since the last grant. Moves a
            call of a higher priority that waits elsewhere to the queue of one of them, and returns that device.
    """

    def __init__(self, limit: TaskLimit, bring: Callable[[Rank | None, Collection[Slots]], Slots | None]) -> None:
        self._limit = limit
        self._bring = bring
        # Devices with a free slot and a queue, by the rank of the first in it.
        self._ready = RankedQueue[Slots]()
        self._ranks: dict[Slots, Rank] = {}
        # Devices with a free slot that calls in other queues may not have seen.
        self._free: dict[Slots, None] = {}

    def update(self, slots: Slots) -> None:
        """Handle a change of a device's slots, gate or queue, or of the device itself. `grant_next` must follow."""
        can_grant = slots.can_grant
        rank = slots.first_rank if can_grant else None
        previous = self._ranks.get(slots)
        if rank != previous:
            if previous is not None:
                self._ready.discard(previous, slots)
                del self._ranks[slots]
            if rank is not None:
                self._ready.add(rank, slots)
                self._ranks[slots] = rank
        if can_grant:
            self._free[slots] = None
        else:
            self._free.pop(slots, None)

    def grant_next(self) -> Slots | None:
        """Grant a slot to the call that is next, or bring it to a device that can grant one.

        Returns:
            The device. Call this again, until it returns None.
        """
        if not self._limit.has_room:
            return None
        brought = self._bring(self._ready.first_rank, self._free) if self._free else None
        if brought is not None:
            return brought
        slots = self._ready.first
        if slots is None:
            # All calls have seen these devices.
            self._free.clear()
            return None
        slots.grant()
        self.update(slots)
        return slots
