"""The end of a constellation's block, by return, exception or cancellation: running tasks, waiting calls, and its duration."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from galaxy_trio import TaskFailed
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import DeviceStatus, TaskEnded, TaskOutcome
from galaxy_trio.messages import ClientMessageType, TaskResult, TaskStatus
from galaxy_trio.testing import open_bare_peer
from tests.constellation.support.calls import Call, World, start
from tests.constellation.support.fleet import Fleet, device_config, open_fleet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.events import Event, EventsLost


async def _hold(constellation: Constellation) -> None:
    async with constellation.devices["a"].reserve() as reservation:
        try:
            await reservation.run_task("wait 6")
        finally:
            with trio.CancelScope(shield=True):
                # After the end, the constellation refuses everything.
                await trio.sleep(10)
                with pytest.raises(trio.ClosedResourceError, match="the constellation was closed"):
                    await reservation.run_task("echo")


async def _listen(constellation: Constellation) -> list[Event | EventsLost]:
    async with constellation.subscribe() as events:
        return [event async for event in events]


def _all_who_wait(constellation: Constellation) -> dict[str, Callable[[], Awaitable[object]]]:
    """Start a call of every kind that waits. Device `a` has four slots, `b` is not connected."""
    a, b = constellation.devices.values()
    return {
        "runs": partial(a.run_task, "wait 1"),
        "runs on the shared connection": partial(a.run_task, "wait 2", on_cancel="abandon"),
        "runs wherever": partial(constellation.run_task, "wait 3"),
        "runs in a reservation": partial(_hold, constellation),
        "waits in a queue": partial(a.run_task, "echo 4"),
        "waits in whichever queue": partial(constellation.run_task, "echo 5"),
        "waits for a device": partial(constellation.run_task, "echo 6", capabilities=["of b"]),
        "waits for a slot": partial(b.run_task, "echo 7"),
        "waits to be connected": b.wait_connected,
        "waits for a status": partial(a.wait_status, DeviceStatus.FAILED),
        "waits for information": partial(b.device_info, timeout=10_000),
        "waits for all": constellation.wait_connected,
    }


async def _open_all(outside: trio.Nursery, constellation: Constellation) -> dict[str, Call]:
    await constellation.devices["a"].wait_connected()
    return {what: await start(outside, call) for what, call in _all_who_wait(constellation).items()}


CONFIGS = (device_config("a", max_concurrent_tasks=4), device_config("b", capabilities=["of b"]))


async def _connect_a(fleet: Fleet, config: DeviceConfig) -> trio.abc.Stream:
    if config.device_id == "b":
        await trio.sleep_forever()
    return await fleet.connect(config)


class Mine(Exception):
    """An exception of the block."""


async def _leave(how: str, scope: trio.CancelScope) -> None:
    match how:
        case "it raises":
            raise Mine
        case "it is cancelled":
            scope.cancel()
            await trio.sleep_forever()
        case "it is cancelled while it drains":
            scope.deadline = trio.current_time() + 100
        case _:
            pass


@pytest.mark.parametrize("how", ["it ends", "it raises", "it is cancelled", "it is cancelled while it drains"])
async def test_calls_outside_of_the_block_raise_closed_resource_error(how: str, autojump_clock: MockClock) -> None:
    drain = 1000 if "drains" in how else 0
    async with open_fleet("a") as fleet, trio.open_nursery() as outside:
        opened: list[Constellation] = []
        calls: dict[str, Call] = {}
        listener = Call()
        with trio.CancelScope() as scope, suppress(Mine):
            async with open_constellation(CONFIGS, connect=partial(_connect_a, fleet), drain=drain) as constellation:
                opened.append(constellation)
                outside.start_soon(listener.run, partial(_listen, constellation))
                calls.update(await _open_all(outside, constellation))
                assert not any(call.ended.is_set() for call in calls.values())
                await _leave(how, scope)
        [constellation] = opened
        began = 100 if drain else 0
        # The server answers the close handshake immediately.
        assert trio.current_time() - began < 1
        with trio.fail_after(20):
            for what, call in calls.items():
                await call.ended.wait()
                assert isinstance(call.ending, trio.ClosedResourceError), (what, call.ending)
            await listener.ended.wait()
        assert isinstance(listener.ending, list)
        await trio.testing.wait_all_tasks_blocked()
        # On the server, all connections have ended and the sessions were cancelled.
        assert fleet.server is not None
        held = fleet.server.statistics()
        assert (held.connections, held.sessions, held.ending_sessions) == (1, 0, 0)
        assert sorted(fleet.work.cancelled) == ["wait 1", "wait 2", "wait 3", "wait 6"]
        assert fleet.work.begun == ["wait 1", "wait 2", "wait 3", "wait 6"]
        # Nothing can be started any more.
        with pytest.raises(trio.ClosedResourceError, match=r"^the constellation was closed$"):
            await constellation.run_task("echo")
        with pytest.raises(trio.ClosedResourceError, match=r"^the constellation was closed$"):
            constellation.add_device(device_config("c"))
        with pytest.raises(trio.ClosedResourceError, match=r"^the constellation was closed$"):
            await constellation.devices["a"].run_task("echo")
        with pytest.raises(trio.ClosedResourceError, match=r"^the constellation was closed$"):
            await constellation.wait_connected()
        statistics = constellation.statistics()
        assert (statistics.running, statistics.queued, statistics.unassigned) == (0, 0, 0)


async def test_running_tasks_continue_during_the_drain_and_no_task_starts(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet, trio.open_nursery() as outside:
        configs = [device_config("a"), device_config("b")]
        async with open_constellation(configs, connect=fleet.connect, drain=100) as constellation:
            await constellation.wait_connected()
            a, b = constellation.devices.values()
            quick = await start(outside, partial(a.run_task, "hold 1"))
            slow = await start(outside, partial(b.run_task, "wait"))
            queued = await start(outside, partial(constellation.run_task, "echo 2"))

            async def release_later() -> None:
                await trio.sleep(50)
                assert isinstance(queued.ending, trio.ClosedResourceError)
                with pytest.raises(trio.ClosedResourceError):
                    await constellation.run_task("echo 3")
                fleet.work.release("1")
                await quick.ended.wait()
                assert quick.echo == "1"
                assert not slow.ended.is_set()

            outside.start_soon(release_later)
            began = trio.current_time()
        assert 100 <= trio.current_time() - began < 105
        await slow.ended.wait()
        assert isinstance(slow.ending, trio.ClosedResourceError)
        assert fleet.work.begun == ["hold 1", "wait"]


async def test_drain_ends_when_no_task_runs(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as outside:
        async with open_constellation([device_config("a")], connect=fleet.connect, drain=1000) as constellation:
            await constellation.wait_connected()
            # An abandoned task runs as well.
            call = await start(outside, partial(constellation.run_task, "hold 1", on_cancel="abandon"))
            call.scope.cancel()
            await call.ended.wait()

            async def release_later() -> None:
                await trio.sleep(30)
                fleet.work.release("1")

            outside.start_soon(release_later)
        assert 30 <= trio.current_time() < 31
        assert fleet.work.ended == ["hold 1"]


async def test_device_may_be_removed_during_the_drain(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet, trio.open_nursery() as outside:
        configs = [device_config("a"), device_config("b")]
        async with open_constellation(configs, connect=fleet.connect, drain=1000) as constellation:
            await constellation.wait_connected()
            running = await start(outside, partial(constellation.devices["a"].run_task, "hold 1"))
            removing = await start(outside, partial(constellation.remove_device, "a"))

            async def release_later() -> None:
                await trio.sleep(30)
                fleet.work.release("1")

            outside.start_soon(release_later)
        assert 30 <= trio.current_time() < 31
        await removing.ended.wait()
        assert (running.echo, removing.ending) == ("1", None)
        assert list(constellation.devices) == ["b"]


@pytest.mark.parametrize("how", ["device", "constellation"])
async def test_task_granted_a_slot_in_the_step_of_the_end_does_not_start(how: str, autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as outside:
        async with open_constellation([device_config("a")], connect=fleet.connect) as constellation:
            await constellation.wait_connected()
            device = constellation.devices["a"]
            run_task = device.run_task if how == "device" else constellation.run_task
            async with device.reserve():
                call = await start(outside, partial(run_task, "wait"))
            # The slot is granted, and the task has not run since.
            assert (device.running, device.queued) == (1, 0)
        assert trio.current_time() < 1
        await call.ended.wait()
        assert isinstance(call.ending, trio.ClosedResourceError)
        assert fleet.work.begun == []
        assert device.running == 0


@pytest.mark.parametrize("how", ["silent", "stalled"])
async def test_fifty_devices_whose_server_ignores_the_close_are_closed_together_within_five_seconds(
    how: str, autojump_clock: MockClock
) -> None:
    names = [f"d{number}" for number in range(50)]
    async with open_fleet(*names) as fleet, trio.open_nursery() as outside:
        world = World(fleet)
        async with open_constellation([device_config(name) for name in names], connect=world.connect) as constellation:
            await constellation.wait_connected()
            calls = [await start(outside, partial(constellation.run_task, "wait")) for _ in names]
            assert len(fleet.work.begun) == 50
            for stream in world.streams:
                if how == "silent":
                    stream.go_silent()
                else:
                    stream.stall()
            began = trio.current_time()
        took = trio.current_time() - began
        assert 3 <= took < 5
        for call in calls:
            assert isinstance(call.ending, trio.ClosedResourceError)
        assert all(stream.closed for stream in world.streams)


async def test_hanging_connect_does_not_delay_the_end(autojump_clock: MockClock) -> None:
    async def hang(_config: object) -> trio.abc.Stream:
        # A custom `connect` may ignore cancellation.
        with trio.move_on_after(50, shield=True):
            await trio.sleep_forever()
        raise OSError("no answer")

    async with open_constellation([device_config("a")], connect=hang) as constellation:
        await trio.testing.wait_all_tasks_blocked()
        assert constellation.devices["a"].status is DeviceStatus.CONNECTING
        began = trio.current_time()
        close = constellation._close
        await close(0)
        assert trio.current_time() - began < 5
    # The block waits for its task nevertheless: nothing outlives the block.
    assert trio.current_time() == pytest.approx(50)


async def test_exception_group_of_the_block_is_unchanged(autojump_clock: MockClock) -> None:
    group = ExceptionGroup("mine", [TaskFailed("no")])
    async with open_fleet("a") as fleet:
        with pytest.raises(ExceptionGroup) as caught:
            async with open_constellation([device_config("a")], connect=fleet.connect) as constellation:
                await constellation.wait_connected()
                raise group
        assert caught.value is group


async def test_bug_in_a_background_task_is_raised_and_ends_all_calls(autojump_clock: MockClock) -> None:
    bug = ZeroDivisionError("a bug")

    class Broken(Random):
        def uniform(self, a: float, b: float) -> float:  # noqa: ARG002  # the signature is Random's
            raise bug

    async with open_fleet("a") as fleet, trio.open_nursery() as outside:
        with pytest.raises(ZeroDivisionError) as caught:
            async with open_constellation(
                [device_config("a")], connect=fleet.connect, random=Broken()
            ) as constellation:
                await constellation.wait_connected()
                running = await start(outside, partial(constellation.run_task, "wait"))
                queued = await start(outside, partial(constellation.run_task, "echo"))
                await fleet.stop_server()
                await trio.sleep_forever()
        assert caught.value is bug
        for call in (running, queued):
            await call.ended.wait()
        assert isinstance(queued.ending, trio.ClosedResourceError)


async def test_task_between_two_attempts_fails_immediately(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as outside:
        world = World(fleet)
        async with open_constellation(
            [device_config("a")], connect=world.connect, reconnect_delay=60, drain=1000
        ) as constellation:
            await constellation.wait_connected()
            world.problems = [OSError("no route") for _ in range(50)]
            calls = [
                await start(outside, partial(run_task, "echo"))
                for run_task in (constellation.run_task, constellation.devices["a"].run_task)
            ]
            assert constellation.devices["a"].running == 1
            await trio.sleep(0.001)
        assert trio.current_time() < 1
        for call in calls:
            assert isinstance(call.ending, trio.ClosedResourceError)
            assert str(call.ending) == "the constellation was closed"


async def test_abandoned_task_ends_as_lost_when_the_block_is_cancelled(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as outside:
        listener = Call()
        with trio.CancelScope() as scope:
            async with open_constellation([device_config("a")], connect=fleet.connect) as constellation:
                await constellation.wait_connected()
                outside.start_soon(listener.run, partial(_listen, constellation))
                call = await start(outside, partial(constellation.run_task, "wait", on_cancel="abandon", task_id="it"))
                call.scope.cancel()
                await call.ended.wait()
                scope.cancel()
        await listener.ended.wait()
        events = cast("list[Event | EventsLost]", listener.ending)
        [ended] = [event for event in events if isinstance(event, TaskEnded)]
        assert (ended.task_id, ended.outcome) == ("it", TaskOutcome.LOST)
        assert fleet.work.cancelled == ["wait"]
        assert constellation.devices["a"].running == 0


@pytest.mark.parametrize("ending", ["it raises", "it ends"])
@pytest.mark.parametrize("event", ["its task fails", "its caller is cancelled"])
async def test_task_events_in_the_step_of_the_end_lead_to_a_correct_outcome_and_start_nothing(
    event: str, ending: str, autojump_clock: MockClock
) -> None:
    for steps in range(30):
        async with open_bare_peer() as peer, trio.open_nursery() as outside:

            async def connect(_config: object) -> trio.abc.Stream:
                await trio.lowlevel.checkpoint()
                return peer.stream

            opened: list[Constellation] = []
            call = Call()
            with suppress(Mine):
                async with open_constellation([device_config("a")], connect=connect) as constellation:
                    opened.append(constellation)
                    for _ in range(2):
                        peer.answer(await peer.receive())
                    await constellation.wait_connected()
                    outside.start_soon(call.run, partial(constellation.run_task, "it", on_cancel="abandon"))
                    task = await peer.receive()
                    assert task.type is ClientMessageType.TASK
                    peer.acknowledge(task)
                    await trio.testing.wait_all_tasks_blocked()
                    if event == "its task fails":
                        peer.end(task, status=TaskStatus.FAILED, error="no")
                    else:
                        call.scope.cancel()
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    outside.start_soon(peer.close)
                    await _leave(ending, trio.CancelScope())
            await call.ended.wait()
            assert call.cancelled or isinstance(call.ending, TaskResult | trio.ClosedResourceError)
            assert opened[0].devices["a"].running == 0
