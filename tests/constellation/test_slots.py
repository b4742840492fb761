"""A device's slots and their queue: first in, first out; never more than there are; none lost."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio.constellation.slots import Place, PlaceMoved, Slot
from galaxy_trio.errors import QueueFull
from tests.constellation.support.slots import GrantedSlots, enter, open_slots

SIZE, MAX_QUEUED = 2, 3


class Closed(Exception):
    """An error for `Slots.close`."""


def _slots(size: int = SIZE, max_queued: int = MAX_QUEUED, *, gate_open: bool = True) -> GrantedSlots:
    return open_slots("a", size, max_queued, gate_open=gate_open)


async def test_slots_are_granted_first_in_first_out_and_the_lowest_free_number_first() -> None:
    slots = _slots()
    places = [enter(slots) for _ in range(4)]
    first, second = [await place.wait() for place in places[:2]]
    assert (first.number, second.number) == (0, 1)
    assert [place.waiting for place in places] == [False, False, True, True]
    assert (slots.taken, slots.free, slots.queued) == (2, 0, 2)
    slots.release(first)
    assert [place.waiting for place in places] == [False, False, False, True]
    third = await places[2].wait()
    assert third.number == 0
    slots.release(second)
    fourth = await places[3].wait()
    assert fourth.number == 1
    slots.release(third)
    slots.release(fourth)
    assert (await enter(slots).wait()).number == 0


async def test_full_queue_refuses_immediately_unless_a_slot_is_free() -> None:
    slots = _slots(1, 1)
    enter(slots)
    enter(slots)
    with pytest.raises(QueueFull, match=r"^the queue of device 'a' is full, with 1 task: this one was not taken; wait"):
        enter(slots)
    assert (slots.taken, slots.queued) == (1, 1)


async def test_places_stay_in_the_queue_while_the_gate_is_shut() -> None:
    slots = _slots(gate_open=False)
    places = [enter(slots) for _ in range(3)]
    assert slots.queued == 3
    slots.open_gate()
    assert slots.queued == 1
    slots.shut_gate()
    slots.release(await places[0].wait())
    assert (slots.queued, slots.free) == (1, 1)
    slots.open_gate()
    assert (slots.queued, slots.free) == (0, 0)


async def test_closed_queue_fails_each_place_and_refuses_new_ones_until_it_is_reopened() -> None:
    slots = _slots(1)
    holder, *others = [enter(slots) for _ in range(3)]
    slots.close(partial(Closed, "gone"))
    raised: list[Exception] = []
    for place in others:
        with pytest.raises(Closed) as caught:
            await place.wait()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    with pytest.raises(Closed):
        enter(slots)
    slots.reopen()
    place = enter(slots)
    # Slots in use stay in use, and go to the next place when released.
    slots.release(await holder.wait())
    assert not place.waiting


async def test_place_that_was_left_gets_no_slot_however_often_it_is_left() -> None:
    slots = _slots(1)
    holder, place = enter(slots), enter(slots)
    place.leave()
    place.leave()
    assert slots.queued == 0
    with pytest.raises(trio.ClosedResourceError, match="was left"):
        await place.wait()
    holder.leave()
    holder.leave()
    assert slots.free == 1


async def test_on_change_is_called_for_a_released_slot_and_for_a_place_that_is_left() -> None:
    seen: list[tuple[int, int]] = []
    slots = GrantedSlots("a", 1, MAX_QUEUED, on_change=lambda: seen.append((slots.taken, slots.queued)))
    slots.open_gate()
    first, second, third = enter(slots), enter(slots), enter(slots)
    seen.clear()
    third.leave()
    slots.release(await first.wait())
    # The place is left in the step in which the slot was granted: only the queue knows of the slot.
    second.leave()
    assert seen == [(1, 1), (1, 0), (0, 0)]


async def test_any_number_of_tasks_may_wait_until_all_slots_are_free() -> None:
    slots = _slots()
    await slots.wait_all_free()
    held = [await enter(slots).wait() for _ in range(2)]
    freed: list[int] = []

    async def wait(number: int) -> None:
        await slots.wait_all_free()
        freed.append(number)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            slots.release(held.pop())
            await trio.testing.wait_all_tasks_blocked()
            assert freed == []
            slots.release(held.pop())
    assert sorted(freed) == [0, 1, 2]


async def test_wait_all_free_continues_when_a_slot_is_taken_before_the_waiter_runs() -> None:
    slots = _slots(1)
    held = await enter(slots).wait()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slots.wait_all_free)
            await trio.testing.wait_all_tasks_blocked()
            slots.release(held)
            held = await enter(slots).wait()
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            slots.release(held)


@attrs.define(eq=False)
class Waiter:
    """A caller in the queue, and its expected state in the model."""

    place: Place
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    slot: Slot | None = None
    ending: str | None = None
    due: str | None = None
    """The expected end, so far."""
    cancelled: bool = False
    granted: bool = False
    """In the model; the caller may not have run since."""

    async def wait(self) -> None:
        with self.scope:
            try:
                self.slot = await self.place.wait()
            except PlaceMoved:
                self.ending = "moved"
            except Closed:
                self.ending = "closed"
            except trio.Cancelled:
                self.ending = "cancelled"
                raise


class Model:
    """A model of the queue. Steps without a pause between them happen in the same scheduler step."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.slots = _slots()
        self.open = True
        self.closed = False
        self.all_waiters: list[Waiter] = []
        self.queue: list[Waiter] = []
        self.holders: list[Waiter] = []

    def _give_out(self) -> None:
        while self.open and self.queue and len(self.holders) < SIZE:
            first = self.queue.pop(0)
            first.granted = True
            self.holders.append(first)

    def enter(self, _which: int) -> None:
        if self.closed:
            with pytest.raises(Closed):
                enter(self.slots)
            return
        if len(self.queue) == MAX_QUEUED:
            with pytest.raises(QueueFull):
                enter(self.slots)
            return
        waiter = Waiter(enter(self.slots))
        self.all_waiters.append(waiter)
        self.queue.append(waiter)
        self._give_out()
        self._nursery.start_soon(waiter.wait)

    def cancel(self, which: int) -> None:
        """In the queue, or in the step in which the slot was given."""
        candidates = [waiter for waiter in self.all_waiters if waiter.slot is None and waiter.due is None]
        if candidates:
            waiter = candidates[which % len(candidates)]
            waiter.scope.cancel()
            waiter.cancelled = True

    def leave(self, which: int) -> None:
        if self.queue:
            waiter = self.queue[which % len(self.queue)]
            if not waiter.cancelled:
                self.queue.remove(waiter)
                waiter.place.move()
                waiter.due = "moved"

    def release(self, which: int) -> None:
        candidates = [waiter for waiter in self.holders if waiter.slot is not None]
        if candidates:
            waiter = candidates[which % len(candidates)]
            assert waiter.slot is not None
            self.holders.remove(waiter)
            self.slots.release(waiter.slot)
            waiter.due = "released"
            self._give_out()

    def gate(self, which: int) -> None:
        self.open = bool(which % 2)
        if self.open:
            self.slots.open_gate()
        else:
            self.slots.shut_gate()
        self._give_out()

    def close(self, _which: int) -> None:
        self.closed = True
        self.slots.close(Closed)
        for waiter in self.queue:
            waiter.due = "cancelled" if waiter.cancelled else "closed"
        self.queue.clear()

    def reopen(self, _which: int) -> None:
        self.closed = False
        self.slots.reopen()

    async def pause(self) -> None:
        """Let all callers run until they are blocked."""
        await trio.testing.wait_all_tasks_blocked()
        for waiter in [*self.queue]:
            if waiter.cancelled:
                waiter.due = "cancelled"
                self.queue.remove(waiter)
        for waiter in [*self.holders]:
            # A caller that was cancelled before its slot was granted never gets it; one that had it keeps it.
            if waiter.cancelled and waiter.slot is None:
                waiter.due = "cancelled"
                self.holders.remove(waiter)
        self._give_out()
        # Callers that got the slots of those that left.
        await trio.testing.wait_all_tasks_blocked()
        self.check()

    def check(self) -> None:
        assert [waiter.place.waiting for waiter in self.queue] == [True] * len(self.queue)
        assert (self.slots.queued, self.slots.taken) == (len(self.queue), len(self.holders))
        numbers = [waiter.slot.number for waiter in self.holders if waiter.slot is not None]
        assert len(numbers) == len(self.holders) == len(set(numbers)) <= SIZE
        for waiter in self.all_waiters:
            if waiter.due in ("moved", "closed", "cancelled"):
                assert (waiter.ending, waiter.slot) == (waiter.due, None)
            elif waiter.due is None:
                assert waiter.ending is None
                assert (waiter.slot is not None) == waiter.granted


Step: TypeAlias = tuple[str, int]
_STEPS = st.tuples(
    st.sampled_from(
        [
            "enter",
            "enter",
            "enter",
            "cancel",
            "leave",
            "release",
            "release",
            "gate",
            "close",
            "reopen",
            "pause",
            "pause",
        ]
    ),
    st.integers(0, 5),
)


@given(steps=st.lists(_STEPS, max_size=40))
async def test_any_sequence_grants_slots_in_order_and_loses_none(steps: list[Step]) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            model = Model(nursery)
            for name, which in steps:
                if name == "pause":
                    await model.pause()
                else:
                    getattr(model, name)(which)
            await model.pause()
            nursery.cancel_scope.cancel()
        for waiter in model.holders:
            assert waiter.slot is not None
            model.slots.release(waiter.slot)
        # Callers that still waited were cancelled, and hold nothing.
        assert (model.slots.queued, model.slots.taken, model.slots.free) == (0, 0, SIZE)
        await model.slots.wait_all_free()
