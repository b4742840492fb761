"""Which call gets a slot, whatever happens to devices and calls: no call of a lower priority before one that could use it."""

from __future__ import annotations

from typing import TypeAlias

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.constellation.support.scheduling import Call, OfflineFleet

_DEVICES = (("a", "x", 1), ("b", "xy", 2), ("c", "y", 1))
_WANTED = "abcxxxyy"


class Script:
    """Steps, which happen in one scheduler pass unless there is a pause between them."""

    def __init__(self, fleet: OfflineFleet) -> None:
        self._fleet = fleet
        for device_id, features, size in _DEVICES:
            fleet.add_device(device_id, features, size)

    def connect(self, which: int) -> None:
        device_id = "abc"[which % 3]
        if device_id in self._fleet.devices:
            self._fleet.devices[device_id].connect()

    def disconnect(self, which: int) -> None:
        device_id = "abc"[which % 3]
        if device_id in self._fleet.devices:
            self._fleet.devices[device_id].disconnect()

    def remove(self, which: int) -> None:
        device_id = "abc"[which % 3]
        device = self._fleet.devices.get(device_id)
        if device is not None:
            device.remove()
            if not device.slots.taken:
                del self._fleet.devices[device_id]

    def add(self, which: int) -> None:
        device_id, features, size = _DEVICES[which % 3]
        if device_id not in self._fleet.devices:
            self._fleet.add_device(device_id, features, size)

    def call(self, which: int) -> None:
        wanted = _WANTED[which % len(_WANTED)]
        if wanted not in "abc" or wanted in self._fleet.devices:
            self._fleet.call(wanted, which // len(_WANTED) % 3 - 1)

    def cancel(self, which: int) -> None:
        waiting = [call for call in self._fleet.calls if call.lease is None and not call.ended]
        if waiting:
            waiting[which % len(waiting)].scope.cancel()

    def release(self, which: int) -> None:
        call = self._running(which)
        if call is not None and call.lease is not None:
            self._fleet.calls.remove(call)
            call.lease.release()

    def call_again(self, which: int) -> None:
        call = self._running(which)
        if call is not None and call.wanted not in "abc":
            self._fleet.call_again(call)

    def _running(self, which: int) -> Call | None:
        running = [call for call in self._fleet.calls if call.lease is not None]
        return running[which % len(running)] if running else None


Step: TypeAlias = tuple[str, int]
_STEPS = st.tuples(
    st.sampled_from(
        ["call"] * 8
        + ["release"] * 4
        + ["pause"] * 4
        + ["cancel", "cancel", "call_again", "connect", "connect", "disconnect", "remove", "add"]
    ),
    st.integers(0, 100),
)


async def _follow(steps: list[Step], limit: int, max_queued: int) -> None:
    async with trio.open_nursery() as nursery:
        fleet = OfflineFleet(nursery, limit, max_queued)
        script = Script(fleet)
        for number in range(2):
            script.connect(number)
        for which in range(8):
            script.call(which)
        await trio.testing.wait_all_tasks_blocked()
        for what, which in steps:
            if what == "pause":
                await trio.testing.wait_all_tasks_blocked()
                fleet.check_blocked()
            else:
                getattr(script, what)(which)
            fleet.check()
        for device_id in fleet.devices:
            fleet.devices[device_id].connect()
        await trio.testing.wait_all_tasks_blocked()
        fleet.check_blocked()
        fleet.scheduler.close(lambda: trio.ClosedResourceError())
        nursery.cancel_scope.cancel()
    assert fleet.scheduler.unassigned == 0


@given(st.lists(_STEPS, min_size=10, max_size=60), st.sampled_from([1, 2, 3, 100]), st.sampled_from([1, 2, 100]))
def test_any_sequence_grants_each_slot_to_the_highest_priority_that_can_use_it(
    steps: list[Step], limit: int, max_queued: int
) -> None:
    trio.run(_follow, steps, limit, max_queued)
