"""The scheduler: the device that it chooses for a task, tasks that wait, and tasks that move to another device."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import NoSuchDevice, QueueFull
from galaxy_trio.events import TaskEnded, TaskOutcome, TaskQueued
from tests.constellation.support.calls import Call, World, open_world, start
from tests.constellation.support.fleet import device_config, recording

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.constellation.profile import DeviceProfile
    from galaxy_trio.constellation.task import OnCancel


def _devices(*names: str, slots: int = 1) -> list[DeviceConfig]:
    return [device_config(name, max_concurrent_tasks=slots) for name in names]


async def _chosen(world: World, **requirements: object) -> str:
    return (await world.constellation.run_task("echo", **requirements)).device_id  # type: ignore[arg-type]


async def test_idle_device_is_chosen_first_then_the_shortest_queue_then_the_longest_idle(
    autojump_clock: MockClock,
) -> None:
    async with open_world(*_devices("a", "b", "c")) as world, trio.open_nursery() as nursery:
        devices = world.constellation.devices
        # The device that was idle for longest, in turn.
        chosen = [await _chosen(world) for _ in range(6)]
        assert (sorted(chosen[:3]), chosen[3:]) == (["a", "b", "c"], chosen[:3])
        await start(nursery, partial(devices["a"].run_task, "hold 1"))
        assert [await _chosen(world) for _ in range(2)] == [name for name in chosen[3:] if name != "a"]
        await start(nursery, partial(devices["b"].run_task, "hold 2"))
        await start(nursery, partial(devices["c"].run_task, "hold 3"))
        for name, queue in (("a", 3), ("b", 1), ("c", 2)):
            for _ in range(queue):
                await start(nursery, partial(devices[name].run_task, "echo"))
        await start(nursery, partial(world.constellation.run_task, "echo"))
        assert [device.queued for device in devices.values()] == [3, 2, 2]
        world.fleet.work.release("1", "2", "3")


async def test_device_with_free_slots_is_chosen_before_one_with_a_queue(autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a"), *_devices("b", slots=3)) as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        await start(nursery, partial(a.run_task, "hold 1"))
        await start(nursery, partial(b.run_task, "hold 2"))
        for _ in range(2):
            await start(nursery, partial(world.constellation.run_task, "hold 3"))
        assert (a.running, a.queued, b.running, b.queued) == (1, 0, 3, 0)
        world.fleet.work.release("1", "2", "3")


async def test_device_is_chosen_by_os_capabilities_and_predicate(autojump_clock: MockClock) -> None:
    configs = [
        device_config("a", os="windows", capabilities=["gui"]),
        device_config("b", os="linux", capabilities=["gui", "browser"], metadata={"room": 7}),
        device_config("c", os="linux", capabilities=["gui", "server"], metadata={"room": 8}),
    ]
    async with open_world(*configs) as world:
        # The information of a device counts.
        assert world.a.profile.os == "linux"

        def in_room_8(profile: DeviceProfile) -> bool:
            return profile.metadata.get("room") == 8

        assert await _chosen(world, capabilities=["browser"]) == "b"
        assert await _chosen(world, capabilities="browser") == "b"
        assert await _chosen(world, os="LINUX", capabilities={"server", "gui"}) == "c"
        assert await _chosen(world, where=in_room_8) == "c"
        async with world.constellation.reserve(os="linux", where=in_room_8) as reservation:
            assert reservation.device_id == "c"
        world.nothing_is_held()


async def test_task_waits_for_a_device_that_may_fit_once_it_is_connected(autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a"), limits=None) as world, trio.open_nursery() as nursery:
        late = world.constellation.add_device(device_config("b", auto_connect=False))
        await world.fleet.add_device("b", "windows", ["gui"])
        call = await start(nursery, partial(world.constellation.run_task, "echo 1", os="windows"))
        statistics = world.constellation.statistics()
        assert (statistics.queued, statistics.unassigned) == (1, 1)
        await trio.sleep(1000)
        await late.connect()
        await call.ended.wait()
        assert call.echo == "1"
        world.nothing_is_held()


async def test_waiting_task_fails_when_the_last_candidate_does_not_fit(
    autojump_clock: MockClock,
) -> None:
    async with open_world(*_devices("a")) as world, trio.open_nursery() as nursery:
        add = world.constellation.add_device
        late = [add(device_config(name, auto_connect=False)) for name in ("b", "c")]
        for name in ("b", "c"):
            await world.fleet.add_device(name, "darwin")
        call = await start(nursery, partial(world.constellation.run_task, "echo 1", os="windows"))
        await late[0].connect()
        await trio.testing.wait_all_tasks_blocked()
        assert not call.ended.is_set()
        await late[1].connect()
        await call.ended.wait()
        assert isinstance(call.ending, NoSuchDevice)
        assert str(call.ending) == (
            "no device for this task any more: none runs 'windows'; there are: 'darwin', 'linux'"
        )
        world.nothing_is_held()


async def test_wait_ends_when_the_information_of_the_only_candidate_does_not_fit(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        device = world.constellation.add_device(device_config("l", os="linux", auto_connect=False))
        call = await start(nursery, partial(world.constellation.run_task, "echo x", os="linux"))
        other = await start(nursery, partial(world.constellation.run_task, "echo x", capabilities=["gui"]))
        await world.fleet.add_device("l", "windows", ["cli"])
        await device.connect()
        for each in (call, other):
            await each.ended.wait()
            assert isinstance(each.ending, NoSuchDevice)
        assert "no device for this task any more: none runs 'linux'; there are: 'windows'" in str(call.ending)


async def test_task_waits_for_another_candidate_when_the_first_is_removed(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        for name in ("a", "b"):
            world.constellation.add_device(device_config(name, auto_connect=False))
        call = await start(nursery, partial(world.constellation.run_task, "echo x"))
        await world.constellation.remove_device("a")
        assert not call.ended.is_set()
        await world.constellation.remove_device("b")
        await call.ended.wait()
        assert isinstance(call.ending, NoSuchDevice)


async def test_task_for_any_device_is_not_overtaken_by_later_ones(autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a")) as world, trio.open_nursery() as nursery:
        await world.a.disconnect()
        calls = [
            await start(nursery, partial(world.constellation.run_task, f"hold {number}", os="linux"))
            for number in range(3)
        ]
        await world.a.connect()
        calls += [
            await start(nursery, partial(world.constellation.run_task, f"hold {number}")) for number in range(3, 5)
        ]
        calls.append(await start(nursery, partial(world.a.run_task, "hold 5")))
        world.fleet.work.release(*"012345")
        for call in calls:
            await call.ended.wait()
        assert world.begun == [f"hold {number}" for number in range(6)]


async def test_queued_task_moves_to_another_device_that_has_room_first(autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a", "b")) as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        held = [await start(nursery, partial(device.run_task, f"hold {device.device_id}")) for device in (a, b)]
        await start(nursery, partial(b.run_task, "hold b2"))
        moving = await start(nursery, partial(world.constellation.run_task, "echo moved", task_id="m"))
        async with recording(world.constellation) as journal:
            assert (a.queued, b.queued) == (1, 1)
            # It waits in the queue of a, and b has room first.
            world.fleet.work.release("b", "b2")
            await moving.ended.wait()
            assert moving.echo == "moved"
        assert TaskQueued("b", "m") in journal.events
        assert journal.of(TaskEnded)[-1] == TaskEnded("b", "m", TaskOutcome.COMPLETED)
        assert not held[0].ended.is_set()
        world.fleet.work.release("a")


async def test_new_device_gets_tasks_that_wait_for_others(autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a")) as world, trio.open_nursery() as nursery:
        await start(nursery, partial(world.a.run_task, "hold 1"))
        calls = [
            await start(nursery, partial(world.constellation.run_task, f"echo {number}", os="linux"))
            for number in range(3)
        ]
        own = await start(nursery, partial(world.a.run_task, "echo own"))
        await world.fleet.add_device("b")
        world.constellation.add_device(device_config("b"))
        for call in calls:
            await call.ended.wait()
        assert world.begun == ["hold 1", "echo 0", "echo 1", "echo 2"]
        assert not own.ended.is_set()
        world.fleet.work.release("1")
        await own.ended.wait()
        world.nothing_is_held()


@pytest.mark.parametrize("how", ["leaves", "is removed", "is disconnected"])
async def test_queued_tasks_of_a_device_that_leaves_move_in_order(how: str, autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a", "b")) as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        await start(nursery, partial(b.run_task, "hold b"))
        for _ in range(4):
            await start(nursery, partial(b.run_task, "echo own"))
        first = await start(nursery, partial(a.run_task, "hold a"))
        own = await start(nursery, partial(a.run_task, "echo of a"))
        calls = [await start(nursery, partial(world.constellation.run_task, f"echo {number}")) for number in range(3)]
        assert (a.queued, b.queued) == (4, 4)
        match how:
            case "leaves":
                await world.fleet.remove_device("a")
            case "is removed":
                await start(nursery, partial(world.constellation.remove_device, "a", wait=False))
            case _:
                await a.disconnect()
        await first.ended.wait()
        assert b.queued == 7
        world.fleet.work.release("b")
        for call in calls:
            await call.ended.wait()
        assert world.begun[2:] == ["echo own"] * 4 + ["echo 0", "echo 1", "echo 2"]
        # Tasks for this device alone wait for it, or fail.
        assert own.ended.is_set() is (how == "is removed")
        own.scope.cancel()


async def test_tasks_wait_while_all_devices_are_away_and_the_first_to_return_runs_them(
    autojump_clock: MockClock,
) -> None:
    async with open_world(*_devices("a", "b")) as world, trio.open_nursery() as nursery:
        for device in world.constellation.devices.values():
            await start(nursery, partial(device.run_task, "wait"))
        calls = [await start(nursery, partial(world.constellation.run_task, f"echo {number}")) for number in range(5)]
        await world.fleet.stop_server()
        assert world.constellation.statistics().unassigned == 5
        await world.fleet.start_server()
        await world.fleet.add_device("b")
        for call in calls:
            await call.ended.wait()
        assert world.begun[2:] == [f"echo {number}" for number in range(5)]
        await world.fleet.add_device("a")
        await world.constellation.wait_connected()
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()


async def test_all_devices_together_run_at_most_max_concurrent_tasks(autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a", "b", "c"), max_concurrent_tasks=2) as world, trio.open_nursery() as nursery:
        calls = [await start(nursery, partial(world.constellation.run_task, f"hold {number}")) for number in range(6)]
        for number in range(6):
            assert len(world.begun) == min(number + 2, 6)
            world.fleet.work.release(world.begun[number][-1])
            await trio.sleep(1)
        assert sorted(call.echo for call in calls) == list("012345")
        # A task that waits for the total limit may be cancelled.
        held = [await start(nursery, partial(world.constellation.run_task, "wait")) for _ in range(3)]
        statistics = world.constellation.statistics()
        assert (statistics.running, statistics.queued, len(world.begun)) == (2, 1, 8)
        waiting = next(call for call in held[2:])
        waiting.scope.cancel()
        await waiting.ended.wait()
        assert world.constellation.statistics().queued == 0
        world.fleet.work.finish.set()
    assert sum(world.fleet.work.running.values()) == 0


@pytest.mark.parametrize("on_cancel", ["stop", "abandon"])
async def test_task_that_waits_for_the_total_limit_moves_when_its_device_leaves(
    on_cancel: OnCancel, autojump_clock: MockClock
) -> None:
    async with open_world(*_devices("a", "b"), max_concurrent_tasks=1) as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        first = await start(nursery, partial(b.run_task, "hold 1"))
        waiting = await start(nursery, partial(world.constellation.run_task, "echo 2", on_cancel=on_cancel))
        assert (a.running, a.queued) == (0, 1)
        await a.disconnect()
        assert not waiting.ended.is_set()
        world.fleet.work.release("1")
        await first.ended.wait()
        await waiting.ended.wait()
        assert waiting.echo == "2"
        assert world.fleet.work.most == {"b": 1}


async def test_task_that_waits_for_the_total_limit_fails_when_its_device_is_removed(
    autojump_clock: MockClock,
) -> None:
    async with open_world(*_devices("a", "b"), max_concurrent_tasks=1) as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        first = await start(nursery, partial(b.run_task, "hold 1"))
        waiting = await start(nursery, partial(a.run_task, "echo 2"))
        elsewhere = await start(nursery, partial(world.constellation.run_task, "echo 3"))
        with trio.fail_after(10):
            await world.constellation.remove_device("a")
        assert isinstance(waiting.ending, NoSuchDevice)
        assert first.ended.is_set() is elsewhere.ended.is_set() is False
        world.fleet.work.release("1")
        await elsewhere.ended.wait()
        assert elsewhere.echo == "3"


async def test_full_queues_refuse_further_tasks(autojump_clock: MockClock) -> None:
    async with open_world(*_devices("a", "b"), max_queued=2) as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        calls = [await start(nursery, partial(world.constellation.run_task, f"hold {number}")) for number in range(6)]
        with pytest.raises(
            QueueFull, match=r"^the queue of device '[ab]' is full, with 2 tasks: this one was not taken; wait"
        ):
            await world.constellation.run_task("echo")
        # The other queue is full: the task waits for room on any device.
        await a.disconnect()
        statistics = world.constellation.statistics()
        assert (statistics.unassigned, statistics.queued, b.queued) == (2, 4, 2)
        await b.disconnect()
        assert world.constellation.statistics().unassigned == 4
        with pytest.raises(
            QueueFull, match=r"^the queue for devices to connect is full, with 2 tasks: this one was not taken; wait"
        ):
            await world.constellation.run_task("echo")
        world.fleet.work.release(*"012345")
        await b.connect()
        for call in calls[2:]:
            await call.ended.wait()
        assert world.begun[2:] == [f"hold {number}" for number in range(2, 6)]
        await a.connect()
        world.nothing_is_held()


@pytest.mark.parametrize("how", ["ends", "is cancelled"])
async def test_task_that_finds_all_queues_full_when_its_device_leaves_precedes_later_ones(
    how: str, autojump_clock: MockClock
) -> None:
    async with open_world(*_devices("a", "b"), max_queued=2) as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        first = await start(nursery, partial(b.run_task, "hold 1"))
        second = await start(nursery, partial(b.run_task, "hold 2"))
        await start(nursery, partial(b.run_task, "hold 3"))
        await start(nursery, partial(a.run_task, "hold a"))
        older = await start(nursery, partial(world.constellation.run_task, "echo older"))
        assert (a.queued, b.queued) == (1, 2)
        await a.disconnect()
        assert (world.constellation.statistics().unassigned, b.queued) == (1, 2)
        if how == "ends":
            world.fleet.work.release("1")
            await first.ended.wait()
        else:
            second.scope.cancel()
            await second.ended.wait()
        assert (world.constellation.statistics().unassigned, b.queued) == (0, 2)
        with pytest.raises(QueueFull):
            await world.constellation.run_task("echo newer")
        world.fleet.work.release("1", "2", "3")
        await older.ended.wait()
        assert older.echo == "older"


async def test_task_that_found_the_queues_of_its_os_full_keeps_its_turn_when_another_os_has_room(
    autojump_clock: MockClock,
) -> None:
    devices = [
        device_config(name, capabilities=(kind,)) for name, kind in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"))
    ]
    async with open_world(*devices, max_queued=1) as world, trio.open_nursery() as nursery:
        a, _b, _c, d = world.constellation.devices.values()
        older: dict[str, Call] = {}
        for kind, stays, goes in (("x", "b", a), ("y", "c", d)):
            for number in range(2):
                await start(nursery, partial(world.constellation.devices[stays].run_task, f"hold {stays}{number}"))
            await start(nursery, partial(goes.run_task, f"hold {goes.device_id}"))
            older[kind] = await start(
                nursery, partial(world.constellation.run_task, f"echo {kind}", capabilities=[kind])
            )
            await goes.disconnect()
        assert world.constellation.statistics().unassigned == 2
        world.fleet.work.release("b0")
        await trio.testing.wait_all_tasks_blocked()
        assert world.constellation.statistics().unassigned == 1
        world.fleet.work.release("c0")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(QueueFull):
            await world.constellation.run_task("echo newer", capabilities=["y"])
        world.fleet.work.release("b1", "c1")
        for kind, call in older.items():
            await call.ended.wait()
            assert call.echo == kind
