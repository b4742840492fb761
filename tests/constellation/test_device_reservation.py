"""A reservation holds its slot: for one task at a time, across reconnects, until its task has ended."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionLost, NoSuchDevice
from galaxy_trio.events import DeviceStatus, TaskEnded, TaskQueued
from tests.constellation.support.calls import Call, World, open_world, start
from tests.constellation.support.fleet import recording

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.reservation import Reservation
    from galaxy_trio.constellation.task import OnCancel


async def _hold(
    world: World, enough: trio.Event, *, task_status: trio.TaskStatus[Reservation] = trio.TASK_STATUS_IGNORED
) -> None:
    async with world.a.reserve() as reservation:
        task_status.started(reservation)
        await enough.wait()


async def test_reservation_holds_its_slot_and_sends_nothing_before_its_first_task(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        async with world.a.reserve() as reservation:
            assert (reservation.device_id, world.a.status, world.a.running) == ("a", DeviceStatus.BUSY, 1)
            assert repr(reservation) == "<Reservation of device 'a'>"
            await trio.sleep(1000)
            assert world.connections == 2
            assert world.begun == []
            async with trio.open_nursery() as nursery:
                waiting = await start(nursery, partial(world.a.run_task, "echo 3"))
                for number in range(1, 3):
                    assert (await reservation.run_task(f"echo {number}")).unwrap()
                await trio.sleep(100)
                assert not waiting.ended.is_set()
                waiting.scope.cancel()
        assert world.begun == ["echo 1", "echo 2"]
        assert repr(reservation) == "<Reservation of device 'a', ended>"
        world.nothing_is_held()


async def test_reservation_runs_one_task_at_a_time_and_none_after_its_end(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, recording(world.constellation) as journal:
        async with world.a.reserve() as reservation, trio.open_nursery() as nursery:
            first = await start(nursery, partial(reservation.run_task, "hold 1", task_id="1"))
            with pytest.raises(trio.BusyResourceError, match="runs one task at a time"):
                await reservation.run_task("echo 2", task_id="2")
            world.fleet.work.release("1")
            await first.ended.wait()
            assert first.echo == "1"
        with pytest.raises(trio.ClosedResourceError, match="the reservation of device 'a' has ended"):
            await reservation.run_task("echo 3", task_id="3")
        assert world.begun == ["hold 1"]
        await trio.testing.wait_all_tasks_blocked()
        # The refused task was never published.
        assert [event.task_id for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)] == ["1"]
        assert journal.of(TaskQueued) == []


async def test_reservation_is_busy_while_its_task_waits_for_the_next_attempt(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, world.a.reserve() as reservation, trio.open_nursery() as nursery:
        world.problems = [OSError("no route") for _ in range(4)]
        first = await start(nursery, partial(reservation.run_task, "echo 1"))
        with pytest.raises(trio.BusyResourceError):
            await reservation.run_task("echo 2")
        await first.ended.wait()
        assert first.echo == "1"
        assert world.begun == ["echo 1"]


async def test_slot_is_held_until_its_task_has_ended_even_if_the_block_ends_first(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        async with world.a.reserve() as reservation:
            first = await start(nursery, partial(reservation.run_task, "hold 1"))
        second = await start(nursery, partial(world.a.run_task, "echo 2"))
        assert (world.a.running, world.a.queued) == (1, 1)
        world.fleet.work.release("1")
        await first.ended.wait()
        await second.ended.wait()
        assert world.fleet.work.most == {"a": 1}
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()


async def test_reservation_outlives_a_connection_and_its_next_task_waits_for_the_next_one(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, world.a.reserve() as reservation:
        await reservation.run_task("echo 1")
        await world.fleet.stop_server()
        assert not world.a.connected
        async with trio.open_nursery() as nursery:
            second = await start(nursery, partial(reservation.run_task, "echo 2"))
            await trio.sleep(100)
            await world.fleet.start_server()
            await world.fleet.add_device("a")
            await second.ended.wait()
            assert second.echo == "2"
            # A held slot makes the device busy as soon as it is connected.
            assert world.a.status is DeviceStatus.BUSY


async def test_reservations_are_granted_in_queue_order_and_leave_the_queue_when_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        enough = [trio.Event() for _ in range(3)]
        first = await nursery.start(_hold, world, enough[0])
        second = await start(nursery, partial(_hold, world, enough[1]))
        third = await start(nursery, partial(nursery.start, _hold, world, enough[2]))
        second.scope.cancel()
        await second.ended.wait()
        assert not third.ended.is_set()
        enough[0].set()
        await third.ended.wait()
        with pytest.raises(trio.ClosedResourceError):
            await first.run_task("echo")
        enough[2].set()
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()


async def test_exception_of_the_block_is_unchanged_and_the_slot_is_released(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        raised = RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught:
            async with world.a.reserve():
                raise raised
        assert caught.value is raised
        world.nothing_is_held()


async def test_reservation_of_a_disconnected_device_waits_until_it_is_connected(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, world.a.reserve() as reservation, trio.open_nursery() as nursery:
        running = await start(nursery, partial(reservation.run_task, "hold 1"))
        await world.a.disconnect()
        assert isinstance(running.ending, ConnectionLost)
        assert running.ending.reason == "this side disconnected it"
        waiting = await start(nursery, partial(reservation.run_task, "echo 2"))
        with trio.fail_after(5):
            # No task runs that could delay the disconnection.
            await world.a.disconnect()
        await trio.sleep(1000)
        assert not waiting.ended.is_set()
        await world.a.connect()
        await waiting.ended.wait()
        assert waiting.echo == "2"


@pytest.mark.parametrize("wait", [True, False])
async def test_reservation_of_a_removed_device_runs_no_more_tasks(wait: bool, autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        enough = trio.Event()
        reservation = await nursery.start(_hold, world, enough)
        assert (await reservation.run_task("echo 1")).unwrap()
        removing = await start(nursery, partial(world.constellation.remove_device, "a", wait=wait))
        assert removing.ended.is_set() is not wait
        if wait:
            # The reservation can run tasks while the device waits for its removal.
            assert (await reservation.run_task("echo 2")).unwrap()
            world.streams[0].reset()
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NoSuchDevice, match="device 'a' was removed"):
            await reservation.run_task("echo 3")
        enough.set()
        await removing.ended.wait()


async def test_task_that_waits_in_a_slot_fails_immediately_when_the_device_is_removed(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        async with world.a.reserve() as reservation:
            await world.fleet.stop_server()
            waiting: Call = await start(nursery, partial(reservation.run_task, "echo"))
            removing = await start(nursery, partial(world.constellation.remove_device, "a"))
            assert isinstance(waiting.ending, NoSuchDevice)
            assert not removing.ended.is_set()
        await removing.ended.wait()
        await world.fleet.start_server()


async def test_before_sending_is_awaited_when_the_device_is_connected_and_nothing_was_sent(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, world.a.reserve() as reservation, trio.open_nursery() as nursery:
        await world.fleet.remove_device("a")
        called = trio.Event()
        go = trio.Event()

        async def record(device_id: str) -> None:
            assert device_id == "a"
            called.set()
            await go.wait()

        call = await start(nursery, partial(reservation.run_task, "echo 1", before_sending=record))
        await trio.sleep(100)
        assert not called.is_set()
        await world.fleet.add_device("a")
        await called.wait()
        await trio.sleep(1)
        assert world.begun == []
        go.set()
        await call.ended.wait()
        assert (call.echo, world.begun) == ("1", ["echo 1"])


@pytest.mark.parametrize("on_cancel", ["stop", "abandon"])
async def test_task_is_never_sent_if_before_sending_raises(autojump_clock: MockClock, on_cancel: OnCancel) -> None:
    async def refuse(_device_id: str) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("the disk is full")

    async def never(_device_id: str) -> None:
        await trio.sleep_forever()

    async with open_world("a") as world, world.a.reserve() as reservation:
        with pytest.raises(ValueError, match="the disk is full"):
            await reservation.run_task("echo 1", before_sending=refuse, on_cancel=on_cancel)
        with trio.move_on_after(1) as scope:
            await reservation.run_task("echo 2", before_sending=never, on_cancel=on_cancel)
        assert scope.cancelled_caught
        assert (await reservation.run_task("echo 3")).unwrap()
        assert world.begun == ["echo 3"]


async def test_before_sending_receives_the_id_of_the_chosen_device(autojump_clock: MockClock) -> None:
    async with open_world("a", "b") as world:
        device_ids: list[str] = []

        async def record(device_id: str) -> None:
            await trio.lowlevel.checkpoint()
            device_ids.append(device_id)

        await world.fleet.remove_device("a")
        for number in range(2):
            assert (await world.constellation.run_task(f"echo {number}", before_sending=record)).unwrap()
        assert (await world.constellation.devices["b"].run_task("echo 2", before_sending=record)).unwrap()
        # The device that left may have been tried, but nothing was sent to it.
        assert device_ids == ["b"] * 3
