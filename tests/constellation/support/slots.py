"""Slots without a device, and the grants of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.constellation.grants import Grants
from galaxy_trio.constellation.ranked_queue import next_rank
from galaxy_trio.constellation.slots import Slots, TaskLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.constellation.ranked_queue import Rank
    from galaxy_trio.constellation.slots import Place


class GrantedSlots(Slots):
    """Slots that are granted whenever they can be.

    Args:
        limit: The number of slots in use on all devices that share `grants`.
        grants: Grants them; a new one unless given.
        on_change: Called after each change.
    """

    def __init__(
        self,
        device_id: str,
        size: int,
        max_queued: int,
        limit: TaskLimit | None = None,
        grants: Grants | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        limit = limit or TaskLimit()
        self._grants = grants or Grants(limit, lambda _rank, _free: None)
        self._when_changed = on_change
        super().__init__(device_id, size, max_queued, limit, self.changed)

    def changed(self) -> None:
        """Grant what can be granted."""
        self._grants.update(self)
        while self._grants.grant_next() is not None:
            pass
        if self._when_changed is not None:
            self._when_changed()


def open_slots(device_id: str, size: int, max_queued: int, *, gate_open: bool = True) -> GrantedSlots:
    """Make the slots of a device, and open their gate."""
    slots = GrantedSlots(device_id, size, max_queued)
    if gate_open:
        slots.open_gate()
    return slots


def enter(slots: GrantedSlots, priority: int = 0, *, rank: Rank | None = None, may_refuse: bool = True) -> Place:
    """Enter the queue, as a device does."""
    place = slots.enter(rank or next_rank(priority), may_refuse=may_refuse)
    slots.changed()
    return place
