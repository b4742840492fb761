"""Tasks with priorities: the highest gets the next slot wherever tasks wait, then what was accepted first."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import QueueFull
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.profile import DeviceProfile
    from tests.constellation.support.calls import World


async def _nothing(_device_id: str) -> None:
    await trio.lowlevel.checkpoint()


def _device(name: str, *features: str, slots: int = 1) -> object:
    return device_config(name, capabilities=features, max_concurrent_tasks=slots)


async def _finish(world: World, *names: str) -> None:
    """End tasks, each before the next one is let go."""
    for name in names:
        world.fleet.work.release(name)
        await trio.testing.wait_all_tasks_blocked()


async def test_waiting_tasks_run_by_priority_then_in_the_order_of_their_acceptance(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        calls = [await start(nursery, partial(world.a.run_task, "hold 0", priority=-100))]
        for name, priority in (("1", 0), ("2", -100), ("3", 100), ("4", 0), ("5", 100)):
            run = world.a.run_task if name in "135" else world.constellation.run_task
            calls += [await start(nursery, partial(run, f"hold {name}", priority=priority))]
        assert world.begun == ["hold 0"]
        await _finish(world, "0", "3", "5", "1", "4", "2")
        assert world.begun == [f"hold {number}" for number in (0, 3, 5, 1, 4, 2)]
        assert all(call.ended.is_set() for call in calls)
        world.nothing_is_held()


async def test_reservations_wait_by_priority_too(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        order: list[str] = []

        async def reserve(name: str, priority: int, *, anywhere: bool) -> None:
            reserve = world.constellation.reserve if anywhere else world.a.reserve
            async with reserve(priority=priority):
                order.append(name)

        holder = await start(nursery, partial(world.a.run_task, "hold 0"))
        calls = [
            await start(nursery, partial(reserve, name, priority, anywhere=anywhere))
            for name, priority, anywhere in (("low", 0, False), ("middle", 1, True), ("high", 2, False))
        ]
        await _finish(world, "0")
        for call in (holder, *calls):
            await call.ended.wait()
        assert order == ["high", "middle", "low"]


async def test_task_for_any_device_takes_the_slot_before_a_lower_task_of_the_device_that_is_free_first(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        for device in (a, b):
            await start(nursery, partial(device.run_task, f"hold {device.device_id}"))
        await start(nursery, partial(b.run_task, "hold low", priority=1))
        # It waits in the queue of a, which is shorter.
        await start(nursery, partial(world.constellation.run_task, "hold high", priority=2))
        assert (a.queued, b.queued) == (1, 1)
        await _finish(world, "b", "high", "low", "a")
        assert world.begun[2:] == ["hold high", "hold low"]
        world.nothing_is_held()


async def test_task_for_any_device_keeps_its_place_if_the_priorities_are_equal(autojump_clock: MockClock) -> None:
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        for device in (a, b):
            await start(nursery, partial(device.run_task, f"hold {device.device_id}"))
        await start(nursery, partial(world.constellation.run_task, "hold any", priority=1))
        first, other = (a, b) if a.queued else (b, a)
        await start(nursery, partial(other.run_task, "hold own", priority=1))
        await _finish(world, other.device_id, first.device_id, "own", "any")
        assert world.begun[2:] == ["hold own", "hold any"]


async def test_limit_of_all_devices_lets_the_highest_priority_run_next(autojump_clock: MockClock) -> None:
    async with open_world("a", "b", "c", max_concurrent_tasks=1) as world, trio.open_nursery() as nursery:
        a, b, c = world.constellation.devices.values()
        await start(nursery, partial(a.run_task, "hold 0"))
        await start(nursery, partial(b.run_task, "hold low", priority=-1))
        await start(nursery, partial(world.constellation.run_task, "hold any"))
        await start(nursery, partial(c.run_task, "hold high", priority=1))
        # Its device has a free slot, for which a task waits already.
        await start(nursery, partial(b.run_task, "hold highest", priority=2))
        await _finish(world, "0", "highest", "high", "any", "low")
        assert world.begun[1:] == ["hold highest", "hold high", "hold any", "hold low"]
        world.nothing_is_held()


async def test_limit_of_all_devices_does_not_keep_a_higher_task_in_the_queue_of_a_busy_device(
    autojump_clock: MockClock,
) -> None:
    devices = (_device("a", "x"), _device("b", "x"), _device("c", "y"))
    async with open_world(*devices, max_concurrent_tasks=2) as world, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        a, b, c = world.constellation.devices.values()
        await start(nursery, partial(a.run_task, "hold a"))
        await start(nursery, partial(b.run_task, "hold b"))
        await start(nursery, partial(c.run_task, "hold own of c"))
        await start(nursery, partial(b.run_task, "hold own of b"))
        await start(nursery, partial(world.constellation.run_task, "hold any", capabilities=["x"], priority=1))
        assert a.queued == 1
        await _finish(world, "b", "a", "any", "own of c", "own of b")
        assert world.begun[2] == "hold any"
        world.nothing_is_held()


async def test_full_queue_refuses_a_task_whatever_its_priority(autojump_clock: MockClock) -> None:
    async with open_world("a", max_queued=1) as world, trio.open_nursery() as nursery:
        for number in range(2):
            await start(nursery, partial(world.a.run_task, f"hold {number}", priority=-100))
        for run in (world.a.run_task, world.constellation.run_task):
            with pytest.raises(QueueFull):
                await run("echo", priority=100)
        world.fleet.work.release("0", "1")


async def test_task_that_was_not_sent_keeps_its_place_among_its_priority_and_lets_higher_ones_pass(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 0")
        await world.fleet.remove_device("a")
        gate = trio.Event()
        first = partial(world.constellation.run_task, before_sending=_nothing, on_not_sent=lambda _: gate.wait())
        calls = [await start(nursery, partial(first, "echo 1"))]
        calls += [await start(nursery, partial(world.a.run_task, "echo equal"))]
        calls += [await start(nursery, partial(world.a.run_task, "echo high", priority=1))]
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        await world.fleet.add_device("a")
        for call in calls:
            await call.ended.wait()
        assert world.begun == ["echo 0", "echo high", "echo 1", "echo equal"]
        world.nothing_is_held()


async def test_cancelled_task_of_the_highest_priority_delays_no_other_task(autojump_clock: MockClock) -> None:
    async with open_world("a", max_queued=2) as world, trio.open_nursery() as nursery:
        await start(nursery, partial(world.a.run_task, "hold 0"))
        low = await start(nursery, partial(world.a.run_task, "echo low"))
        high = await start(nursery, partial(world.a.run_task, "echo high", priority=100))
        high.scope.cancel()
        await high.ended.wait()
        assert world.a.queued == 1
        await start(nursery, partial(world.a.run_task, "echo last"))
        await _finish(world, "0")
        await low.ended.wait()
        assert world.begun == ["hold 0", "echo low", "echo last"]


async def test_error_of_where_comes_out_of_the_call_that_gave_it_when_a_slot_is_free(autojump_clock: MockClock) -> None:
    class Changed(Exception):
        """The condition cannot be evaluated any more."""

    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        for device in (a, b):
            await start(nursery, partial(device.run_task, f"hold {device.device_id}"))
        # The others wait in the queue of a, which is shorter.
        for _ in range(4):
            await start(nursery, partial(b.run_task, "echo own"))
        broken = False

        def where(_profile: DeviceProfile) -> bool:
            if broken:
                raise Changed
            return True

        run = partial(world.constellation.run_task, "echo", where=where)
        failing = [await start(nursery, partial(run, priority=1)) for _ in range(2)]
        good = await start(nursery, partial(world.constellation.run_task, "echo good", priority=1))
        broken = True
        await _finish(world, "b")
        assert b.queued == 0
        assert [type(call.ending) for call in failing] == [Changed, Changed]
        await _finish(world, "a")
        await good.ended.wait()
        assert world.begun[2] == "echo good"
        world.nothing_is_held()


async def test_error_of_where_about_a_free_device_is_raised_in_a_call_that_waits_for_another_one(
    autojump_clock: MockClock,
) -> None:
    broken = False

    def where(_profile: DeviceProfile) -> bool:
        if broken:
            raise LookupError
        return True

    async with open_world("a", "b") as world, trio.open_nursery() as nursery, AsyncExitStack() as reservations:
        blocks = {device: AsyncExitStack() for device in world.constellation.devices.values()}
        for device, block in blocks.items():
            await reservations.enter_async_context(block)
            await block.enter_async_context(device.reserve())
        waiting = await start(nursery, partial(world.constellation.run_task, "echo", where=where))
        broken = True
        [other] = [device for device in blocks if not device.queued]
        await blocks[other].aclose()
        await waiting.ended.wait()
        assert isinstance(waiting.ending, LookupError)
        assert world.begun == []


async def test_where_is_asked_once_for_all_waiting_tasks_that_share_it(autojump_clock: MockClock) -> None:
    devices = (_device("a", "x"), _device("b"))
    async with open_world(*devices) as world, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        a, b = world.constellation.devices.values()
        asked = 0

        def where(profile: DeviceProfile) -> bool:
            nonlocal asked
            asked += 1
            return "x" in profile.capabilities

        await start(nursery, partial(a.run_task, "hold a"))
        for _ in range(200):
            nursery.start_soon(partial(world.constellation.run_task, "echo", where=where, priority=1))
        await trio.testing.wait_all_tasks_blocked()
        asked = 0
        for _ in range(10):
            await b.run_task("echo")
        assert asked <= 100
        await _finish(world, "a")


@pytest.mark.parametrize("priority", [101, -101, 0.5, True, "high", None])
async def test_priority_that_is_no_whole_number_in_range_is_refused(
    priority: object, autojump_clock: MockClock
) -> None:
    async with open_world("a") as world:
        words = rf"^a priority is a whole number from -100 to 100, not {priority!r}$"
        for run in (world.a.run_task, world.constellation.run_task):
            with pytest.raises(ValueError, match=words):
                await run("echo", priority=priority)  # type: ignore[arg-type]
        for reserve in (world.a.reserve, world.constellation.reserve):
            with pytest.raises(ValueError, match=words):
                async with reserve(priority=priority):  # type: ignore[arg-type]
                    pass
        world.nothing_is_held()
