"""The scheduler: the chosen device, waiting tasks, and the error when no device fits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed, NoSuchDevice, QueueFull
from tests.constellation.support.calls import Call, World, open_world, start
from tests.constellation.support.fleet import device_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio import DeviceProfile

Clock = trio.testing.MockClock


async def submit(nursery: trio.Nursery, world: World, request: str, **requirements: object) -> Call:
    """Submit a task for any device that fits."""
    call = partial(world.constellation.run_task, request, **requirements)  # type: ignore[arg-type]
    return await start(nursery, call)


def device_of(call: Call) -> str:
    """Return the device on which a completed task ran."""
    return call.ending.unwrap()["device"]  # type: ignore[attr-defined,no-any-return]


def only(name: str) -> Callable[[DeviceProfile], bool]:
    """A predicate that accepts one device."""
    return lambda profile: profile.device_id == name


def no_device(profile: DeviceProfile) -> bool:
    """A predicate that accepts no device."""
    return False


def queues(world: World) -> dict[str, tuple[int, int]]:
    """Return the numbers of running and queued tasks of each device."""
    return {name: (device.running, device.queued) for name, device in world.constellation.devices.items()}


async def test_idle_device_is_preferred_then_the_shortest_queue_then_the_longest_idle(
    autojump_clock: Clock,
) -> None:
    async with open_world("a", "b", "c") as world, trio.open_nursery() as nursery:
        for name in ("b", "a"):
            await world.constellation.devices[name].run_task("echo x")
        for number, name in enumerate(["c", "b", "a"]):
            await submit(nursery, world, f"hold {name}")
            assert world.constellation.devices[name].running == 1
            assert sum(device.running for device in world.constellation.devices.values()) == number + 1
        # All devices are busy: the shortest queue is chosen.
        waiting = [await submit(nursery, world, f"echo {number}") for number in range(3)]
        assert queues(world) == {"a": (1, 1), "b": (1, 1), "c": (1, 1)}
        world.fleet.work.release("b")
        await trio.testing.wait_all_tasks_blocked()
        # Tasks that waited for the others have moved to free slots.
        assert [device_of(call) for call in waiting] == ["b", "b", "b"]
        world.fleet.work.release("c", "a")
        await trio.testing.wait_all_tasks_blocked()
        last = [await submit(nursery, world, "echo x") for _ in range(3)]
        assert sorted(device_of(call) for call in last) == ["a", "b", "c"]
        world.nothing_is_held()


async def test_device_with_free_slots_is_preferred(autojump_clock: Clock) -> None:
    async with open_world("a", device_config("b", max_concurrent_tasks=3)) as world, trio.open_nursery() as nursery:
        for _ in range(4):
            await submit(nursery, world, "wait")
        assert queues(world) == {"a": (1, 0), "b": (3, 0)}
        world.fleet.work.finish.set()


async def test_os_capabilities_and_predicate_select_a_device_and_case_is_ignored(autojump_clock: Clock) -> None:
    async with open_world() as world:
        for name, platform, features in (
            ("w", "windows", ["cli", "gui"]),
            ("l", "linux", ["cli"]),
            ("m", "linux", ["gui"]),
        ):
            await world.fleet.add_device(name, platform, features)
            await world.constellation.add_device(device_config(name)).connect()

        async def ran_on(**requirements: object) -> object:
            result = await world.constellation.run_task("echo x", **requirements)  # type: ignore[arg-type]
            return result.device_id

        assert await ran_on(os="Windows") == "w"
        assert await ran_on(os="LINUX", capabilities=["gui"]) == "m"
        assert await ran_on(os="linux", capabilities="cli") == "l"
        assert await ran_on(capabilities={"cli", "gui"}) == "w"
        assert await ran_on(where=only("m")) == "m"
        async with world.constellation.reserve(os="windows") as reservation:
            assert reservation.device_id == "w"
            assert world.constellation.devices["w"].running == 1
            assert (await reservation.run_task("echo y")).device_id == "w"


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ({"os": "beos"}, "none runs 'beos'; there are: 'linux', 'windows'"),
        ({"capabilities": {"fly", "swim"}}, "none has 'fly', 'swim'"),
        ({"os": "linux", "capabilities": {"gui"}}, "none that runs 'linux' has 'gui'"),
        ({"capabilities": {"cli", "gui"}}, "none has all of 'cli', 'gui'"),
        ({"where": no_device}, "none satisfies `where`"),
        ({"os": "linux", "capabilities": {"cli"}, "where": no_device},
         "none that runs 'linux' with 'cli' satisfies `where`"),
    ],
    ids=["system", "capabilities", "both", "together", "predicate", "all"],
)  # fmt: skip
async def test_error_says_what_is_missing_when_no_device_can_fit(
    requirements: dict[str, object], words: str, autojump_clock: Clock
) -> None:
    async with open_world() as world:
        for name, platform, features in (("w", "windows", ["gui"]), ("l", "linux", ["cli"])):
            await world.fleet.add_device(name, platform, features)
            await world.constellation.add_device(device_config(name)).connect()
        with pytest.raises(NoSuchDevice) as caught:
            await world.constellation.run_task("echo x", **requirements)  # type: ignore[arg-type]
        assert str(caught.value) == f"no device for this task: {words}"


async def test_error_says_that_there_are_no_devices_or_that_they_failed(autojump_clock: Clock) -> None:
    async with open_world() as world:
        with pytest.raises(NoSuchDevice, match="there are no devices"):
            await world.constellation.run_task("echo x")
        failing = device_config("f", os="linux", max_retries=0)
        world.problems.append(OSError("refused"))
        device = world.constellation.add_device(failing)
        with pytest.raises(ConnectFailed, match="refused"):
            await device.wait_connected()
        with pytest.raises(NoSuchDevice, match=r"'f' would fit, but was given up: .*refused"):
            await world.constellation.run_task("echo x", os="linux")
        with pytest.raises(NoSuchDevice, match="none runs 'beos'"):
            await world.constellation.run_task("echo x", os="beos")


async def test_exception_of_a_predicate_is_raised_whenever_it_is_called(autojump_clock: Clock) -> None:
    answers: list[bool | Exception] = []

    def where(profile: DeviceProfile) -> bool:
        answer = answers.pop(0) if answers else ZeroDivisionError("mine")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await world.constellation.run_task("echo x", where=where)
        for _ in range(2):
            await submit(nursery, world, "wait")
        # The task waits for one device, and its predicate is called again when the other has room.
        for count in range(3, 12):
            answers[:] = [True] * count
            call = await submit(nursery, world, "echo y", where=where)
            if call.ended.is_set():
                assert isinstance(call.ending, ZeroDivisionError)
        answers.clear()
        world.fleet.work.finish.set()
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()


async def test_task_waits_while_no_device_that_fits_is_connected(autojump_clock: Clock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        device = world.constellation.add_device(device_config("l", os="linux", auto_connect=False))
        call = await submit(nursery, world, "echo x", os="linux")
        assert not call.ended.is_set()
        assert world.constellation.statistics().unassigned == world.constellation.statistics().queued == 1
        await world.fleet.add_device("l")
        await device.connect()
        await call.ended.wait()
        assert device_of(call) == "l"
        world.nothing_is_held()


async def test_wait_ends_when_the_information_of_the_only_candidate_does_not_fit(autojump_clock: Clock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        device = world.constellation.add_device(device_config("l", os="linux", auto_connect=False))
        call = await submit(nursery, world, "echo x", os="linux")
        other = await submit(nursery, world, "echo x", capabilities=["gui"])
        await world.fleet.add_device("l", "windows", ["cli"])
        await device.connect()
        for each in (call, other):
            await each.ended.wait()
            assert isinstance(each.ending, NoSuchDevice)
        assert "no device for this task any more: none runs 'linux'; there are: 'windows'" in str(call.ending)


async def test_task_waits_for_another_candidate_when_the_first_is_removed(autojump_clock: Clock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        for name in ("a", "b"):
            world.constellation.add_device(device_config(name, auto_connect=False))
        call = await submit(nursery, world, "echo x")
        await world.constellation.remove_device("a")
        assert not call.ended.is_set()
        await world.constellation.remove_device("b")
        await call.ended.wait()
        assert isinstance(call.ending, NoSuchDevice)


async def test_more_waiting_tasks_than_max_queued_are_refused(autojump_clock: Clock) -> None:
    async with open_world("a", max_queued=2) as world, trio.open_nursery() as nursery:
        waiting = [await submit(nursery, world, "wait", os="linux") for _ in range(3)]
        with pytest.raises(QueueFull, match="2 tasks wait for device 'a' already"):
            await world.constellation.run_task("echo x")
        world.constellation.add_device(device_config("later", os="beos", auto_connect=False))
        later = [await submit(nursery, world, "echo x", os="beos") for _ in range(2)]
        with pytest.raises(QueueFull, match="2 tasks wait for devices to connect already"):
            await world.constellation.run_task("echo x", os="beos")
        for call in (*waiting, *later):
            call.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert all(call.cancelled for call in (*waiting, *later))
        world.constellation.statistics()


async def test_cancelled_wait_leaves_nothing(autojump_clock: Clock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        running = await submit(nursery, world, "wait")
        waiting = [await submit(nursery, world, "echo x") for _ in range(3)]
        for call in waiting:
            call.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert queues(world) == {"a": (1, 0)}
        world.fleet.work.finish.set()
        await running.ended.wait()
        world.nothing_is_held()


async def test_queued_tasks_of_a_device_that_leaves_move_to_another_one_in_order(autojump_clock: Clock) -> None:
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        for name in ("a", "b"):
            await submit(nursery, world, f"hold {name}", where=only(name))
        calls = [await submit(nursery, world, f"echo {number}") for number in range(4)]
        assert queues(world) == {"a": (1, 2), "b": (1, 2)}
        await world.fleet.remove_device("a")
        await trio.sleep(1)
        assert world.constellation.devices["b"].queued == 4
        world.fleet.work.release("b")
        for call in calls:
            await call.ended.wait()
        assert [device_of(call) for call in calls] == ["b"] * 4
        # After those that waited there, in the order of their submission.
        begun = [request for request in world.begun if request.startswith("echo")]
        assert begun in ([f"echo {n}" for n in (1, 3, 0, 2)], [f"echo {n}" for n in (0, 2, 1, 3)])


async def test_task_refused_because_its_device_left_runs_on_another_one(autojump_clock: Clock) -> None:
    async with open_world("a", "b") as world:
        await world.fleet.remove_device("a")
        results = [await world.constellation.run_task(f"echo {number}") for number in range(3)]
        assert [result.device_id for result in results] == ["b"] * 3
        assert not world.constellation.devices["a"].connected


async def test_added_device_takes_tasks_that_wait_for_others(autojump_clock: Clock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await submit(nursery, world, "wait")
        calls = [await submit(nursery, world, f"echo {number}") for number in range(3)]
        await world.fleet.add_device("b")
        await world.constellation.add_device(device_config("b")).connect()
        for call in calls:
            await call.ended.wait()
        assert [device_of(call) for call in calls] == ["b"] * 3
        world.fleet.work.finish.set()


async def test_removing_a_device_fails_its_own_tasks_and_moves_the_others(
    autojump_clock: Clock,
) -> None:
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        running = [await submit(nursery, world, "wait") for _ in range(2)]
        own = await start(nursery, partial(world.a.run_task, "echo own"))
        anyones = [await submit(nursery, world, f"echo {number}") for number in range(2)]
        removing = await start(nursery, partial(world.constellation.remove_device, "a"))
        assert isinstance(own.ending, NoSuchDevice)
        assert str(own.ending) == "device 'a' was removed"
        assert not removing.ended.is_set()
        assert world.constellation.devices["b"].queued == 2
        world.fleet.work.finish.set()
        for call in (*running, *anyones, removing):
            await call.ended.wait()
        assert [device_of(call) for call in anyones] == ["b", "b"]
        assert list(world.constellation.devices) == ["b"]
        with pytest.raises(NoSuchDevice, match="there is no device 'a' to be removed"):
            await world.constellation.remove_device("a")


async def test_max_concurrent_tasks_limits_all_devices_together(autojump_clock: Clock) -> None:
    async with open_world("a", "b", "c", max_concurrent_tasks=2) as world, trio.open_nursery() as nursery:
        calls = [await submit(nursery, world, f"hold {number}") for number in range(5)]
        assert world.begun == ["hold 0", "hold 1"]
        calls[2].scope.cancel()
        world.fleet.work.release("1")
        await trio.testing.wait_all_tasks_blocked()
        assert world.begun[2:] == ["hold 3"]
        world.fleet.work.release("0", "3", "4")
        for call in calls:
            await call.ended.wait()
        assert sorted(world.fleet.work.ended) == ["hold 0", "hold 1", "hold 3", "hold 4"]
        world.nothing_is_held()
