"""A task that had its slot and was not sent, because its device had left, keeps its place before the tasks that came after it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import NoSuchDevice
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.slots import enter, open_slots

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.slots import Place


async def _nothing(_device_id: str) -> None:
    await trio.lowlevel.checkpoint()


async def test_task_for_any_device_keeps_its_place_when_its_device_left_and_is_back_immediately(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 0")
        await world.fleet.remove_device("a")

        async def return_to_the_server(_device_id: str) -> None:
            # The others get their chance to run before the task waits again.
            await world.fleet.add_device("a")
            await world.a.reconnect()
            await trio.sleep(100)

        run = partial(world.constellation.run_task, before_sending=_nothing, on_not_sent=return_to_the_server)
        calls = [await start(nursery, partial(run, "echo 1"))]
        calls += [await start(nursery, partial(world.a.run_task, "echo 2"))]
        calls += [await start(nursery, partial(world.constellation.run_task, "echo 3"))]
        for call in calls:
            await call.ended.wait()
        assert world.begun == ["echo 0", "echo 1", "echo 2", "echo 3"]
        world.nothing_is_held()


async def test_task_for_any_device_keeps_its_place_when_its_device_is_back_later(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 0")
        await world.fleet.remove_device("a")
        calls = [await start(nursery, partial(world.constellation.run_task, "echo 1"))]
        for number in (2, 3):
            calls += [await start(nursery, partial(world.a.run_task, f"echo {number}"))]
            calls += [await start(nursery, partial(world.constellation.run_task, f"echo any {number}"))]
        await trio.sleep(100)
        assert world.a.queued == 2
        await world.fleet.add_device("a")
        for call in calls:
            await call.ended.wait()
        assert world.begun[:2] == ["echo 0", "echo 1"]
        world.nothing_is_held()


async def test_tasks_that_had_slots_wait_again_in_their_order(autojump_clock: MockClock) -> None:
    async with open_world("a", max_concurrent_tasks=2) as world, trio.open_nursery() as nursery:
        for call in [await start(nursery, partial(world.a.run_task, f"echo {number}")) for number in range(2)]:
            await call.ended.wait()
        await world.fleet.remove_device("a")
        gate = trio.Event()
        first = partial(world.constellation.run_task, before_sending=_nothing, on_not_sent=lambda _: gate.wait())
        calls = [await start(nursery, partial(first, "echo 2"))]
        # The second one waits again before the first one does.
        calls += [await start(nursery, partial(world.constellation.run_task, "echo 3"))]
        calls += [await start(nursery, partial(world.constellation.run_task, "echo 4"))]
        await trio.sleep(1)
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        await world.fleet.add_device("a")
        for call in calls:
            await call.ended.wait()
        assert world.begun[2:] == ["echo 2", "echo 3", "echo 4"]
        world.nothing_is_held()


async def test_task_that_waits_again_is_not_refused_because_the_queue_is_full(autojump_clock: MockClock) -> None:
    async with open_world("a", max_queued=1) as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 0")
        await world.fleet.remove_device("a")
        gate = trio.Event()
        run = partial(world.constellation.run_task, before_sending=_nothing, on_not_sent=lambda _: gate.wait())
        first = await start(nursery, partial(run, "echo 1"))
        others = [await start(nursery, partial(world.a.run_task, "echo 2"))]
        others += [await start(nursery, partial(world.constellation.run_task, "echo 3"))]
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not first.ended.is_set()
        await world.fleet.add_device("a")
        for call in (first, *others):
            await call.ended.wait()
        assert world.begun[:2] == ["echo 0", "echo 1"]
        world.nothing_is_held()


async def test_cancelled_task_that_waits_again_leaves_its_place(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 0")
        await world.fleet.remove_device("a")
        first = await start(nursery, partial(world.constellation.run_task, "echo 1"))
        second = await start(nursery, partial(world.a.run_task, "echo 2"))
        first.scope.cancel()
        await first.ended.wait()
        await world.fleet.add_device("a")
        await second.ended.wait()
        assert world.begun == ["echo 0", "echo 2"]
        world.nothing_is_held()


async def test_task_whose_only_device_was_removed_before_it_waits_again_is_reported(autojump_clock: MockClock) -> None:
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 0")
        await world.fleet.remove_device("a")

        async def remove(_device_id: str) -> None:
            await world.constellation.remove_device("a", wait=False)

        run = partial(
            world.constellation.run_task,
            where=lambda profile: profile.device_id == "a",
            before_sending=_nothing,
            on_not_sent=remove,
        )
        call = await start(nursery, partial(run, "echo 1"))
        await call.ended.wait()
        assert isinstance(call.ending, NoSuchDevice)
        world.nothing_is_held()


def test_place_of_a_call_that_had_a_slot_is_before_those_of_later_calls_only() -> None:
    slots = open_slots("a", 1, 1)
    running = enter(slots)
    last = enter(slots)
    # It was moved here, and waits behind a later call.
    again = enter(slots, rank=running.rank, may_refuse=False)
    assert (slots.queued, last.waiting, again.waiting) == (2, True, True)
    running.leave()
    assert (last.waiting, again.waiting) == (True, False)


@pytest.mark.parametrize("turn", [0, 10**9])
def test_queue_keeps_the_order_of_the_others_when_a_call_enters_again(turn: int) -> None:
    slots = open_slots("a", 1, 10, gate_open=False)
    places = [enter(slots) for _ in range(4)]
    again = enter(slots, rank=(0, turn))
    expected = [again, *places] if turn == 0 else [*places, again]
    granted: list[Place] = []
    slots.open_gate()
    for _ in expected:
        [place] = [place for place in expected if not place.waiting and place not in granted]
        granted.append(place)
        place.leave()
    assert granted == expected
