"""The grants of the slots of several devices under one limit, against a naive sorted list."""

from __future__ import annotations

from typing import TypeAlias

import attrs
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio.constellation.grants import Grants
from galaxy_trio.constellation.ranked_queue import Rank, next_rank
from galaxy_trio.constellation.slots import Place, TaskLimit
from tests.constellation.support.slots import GrantedSlots, enter

_SIZES = (1, 2, 1)


@attrs.define(eq=False)
class Call:
    """A call in the queue of a device, or in a slot."""

    place: Place
    device: int

    @property
    def rank(self) -> Rank:
        return self.place.rank


class Model:
    """Devices, and the calls that must wait and run on them."""

    def __init__(self, limit: int) -> None:
        self._size = limit
        self._limit = TaskLimit(limit)
        grants = Grants(self._limit, lambda _rank, _free: None)
        self._devices = [
            GrantedSlots(f"d{number}", size, 1_000, self._limit, grants) for number, size in enumerate(_SIZES)
        ]
        self._open = [False] * len(_SIZES)
        self._waiting: list[Call] = []
        self._running: list[Call] = []
        for device in range(len(_SIZES)):
            self.gate(device)

    def enter(self, which: int) -> None:
        device = which % len(_SIZES)
        self._add(device, next_rank(which % 5 - 2))

    def _add(self, device: int, rank: Rank) -> None:
        self._waiting.append(Call(enter(self._devices[device], rank=rank), device))

    def leave(self, which: int) -> None:
        if self._waiting:
            self._waiting.pop(which % len(self._waiting)).place.leave()

    def release(self, which: int) -> None:
        if self._running:
            self._running.pop(which % len(self._running)).place.leave()

    def enter_again(self, which: int) -> None:
        """A call could not use its slot."""
        if self._running:
            call = self._running[which % len(self._running)]
            self._add(call.device, call.rank)
            self._running.remove(call)
            call.place.leave()

    def gate(self, which: int) -> None:
        device = which % len(_SIZES)
        self._open[device] = not self._open[device]
        if self._open[device]:
            self._devices[device].open_gate()
        else:
            self._devices[device].shut_gate()
            self._devices[device].changed()

    def check(self) -> None:
        while (call := self._next()) is not None:
            self._waiting.remove(call)
            self._running.append(call)
        assert [call.place.waiting for call in self._waiting] == [True] * len(self._waiting)
        assert [call.place.waiting for call in self._running] == [False] * len(self._running)
        assert self._limit.taken == len(self._running) == sum(slots.taken for slots in self._devices)
        assert [slots.queued for slots in self._devices] == [
            sum(call.device == device for call in self._waiting) for device in range(len(_SIZES))
        ]

    def _next(self) -> Call | None:
        if len(self._running) == self._size:
            return None
        taken = [sum(call.device == device for call in self._running) for device in range(len(_SIZES))]
        usable = [
            call for call in self._waiting if self._open[call.device] and taken[call.device] < _SIZES[call.device]
        ]
        return min(usable, key=lambda call: call.rank, default=None)


Step: TypeAlias = tuple[str, int]
_STEPS = st.tuples(
    st.sampled_from(["enter", "enter", "enter", "leave", "release", "release", "enter_again", "gate"]),
    st.integers(0, 100),
)


@given(st.integers(1, 4), st.lists(_STEPS, min_size=10, max_size=60))
def test_any_sequence_grants_slots_of_all_devices_by_rank(limit: int, steps: list[Step]) -> None:
    model = Model(limit)
    for what, which in steps:
        getattr(model, what)(which)
        model.check()
