"""Requirements: errors that say what is missing, predicates that raise, and devices whose information arrives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import NoSuchDevice, RequestRejected
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.messages import JSON, ClientMessageType, ServerMessageType
from galaxy_trio.testing import ScriptedPeer, open_bare_peer
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config, open_fleet

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.profile import DeviceProfile


def _never(_profile: DeviceProfile) -> bool:
    return False


@pytest.mark.parametrize(
    ("requirements", "sentence"),
    [
        ({"os": "Windows"}, "none runs 'Windows'; there are: 'darwin', 'linux'"),
        ({"capabilities": ["gui", "oven"]}, "none has 'oven'"),
        ({"capabilities": {"oven", "fridge"}, "os": "linux"}, "none that runs 'linux' has 'fridge', 'oven'"),
        ({"capabilities": ["gui", "cli"]}, "none has all of 'cli', 'gui'"),
        ({"os": "darwin", "capabilities": ["gui"]}, "none that runs 'darwin' has 'gui'"),
        ({"where": _never}, "none satisfies `where`"),
        ({"os": "linux", "where": _never}, "none that runs 'linux' satisfies `where`"),
        (
            {"os": "linux", "capabilities": ["gui"], "where": _never},
            "none that runs 'linux' with 'gui' satisfies `where`",
        ),
    ],
)
async def test_task_that_no_device_can_fit_fails_immediately_with_what_is_missing(
    requirements: dict[str, object], sentence: str, autojump_clock: MockClock
) -> None:
    async with open_fleet() as fleet:
        await fleet.add_device("a", "linux", ["gui"])
        await fleet.add_device("b", "darwin", ["cli"])
        configs = [device_config("a"), device_config("b")]
        async with open_constellation(configs, connect=fleet.connect) as constellation:
            await constellation.wait_connected()
            with pytest.raises(NoSuchDevice) as caught:
                await constellation.run_task("echo", **requirements)  # type: ignore[arg-type]
            assert str(caught.value) == f"no device for this task: {sentence}"
            with pytest.raises(NoSuchDevice):
                async with constellation.reserve(**requirements):  # type: ignore[arg-type]
                    raise AssertionError


async def test_task_fails_if_there_are_no_devices(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with pytest.raises(NoSuchDevice, match=r"^no device for this task: there are no devices$"):
            await world.constellation.run_task("echo")
        world.constellation.add_device(device_config("a", os="linux", auto_connect=False))
        with pytest.raises(NoSuchDevice, match=r"^no device for this task: none runs 'windows'; there are: 'linux'$"):
            await world.constellation.run_task("echo", os="windows")


async def test_error_for_a_removed_device_names_it_even_if_its_os_is_unknown(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        device = world.constellation.add_device(device_config("a", auto_connect=False))
        async with trio.open_nursery() as nursery:
            waiting = await start(nursery, partial(world.constellation.run_task, "echo", os="windows"))
            removing = await start(nursery, partial(world.constellation.remove_device, "a"))
            await removing.ended.wait()
        assert isinstance(waiting.ending, NoSuchDevice)
        assert str(waiting.ending) == "no device for this task any more: 'a' would fit, but was removed"
        assert device.profile.os is None


async def test_error_names_a_device_that_would_fit_but_was_given_up(autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_retries=0)) as world, trio.open_nursery() as nursery:
        await start(nursery, partial(world.a.run_task, "wait"))
        waiting = await start(nursery, partial(world.constellation.run_task, "echo"))
        await world.fleet.stop_server()
        await waiting.ended.wait()
        assert isinstance(waiting.ending, NoSuchDevice)
        assert str(waiting.ending) == (
            f"no device for this task any more: 'a' would fit, but was given up: {world.a.failure}"
        )
        with pytest.raises(NoSuchDevice, match=r"^no device for this task: 'a' would fit, but was given up: "):
            await world.constellation.run_task("echo")
        # It is a candidate again while it reconnects.
        await world.fleet.start_server()
        await world.fleet.add_device("a")
        again = await start(nursery, world.a.reconnect)
        assert (await world.constellation.run_task("echo 2")).unwrap()
        await again.ended.wait()


class Mine(Exception):
    """Raised by a predicate."""


@attrs.define
class Moody:
    """A predicate that accepts every device until it raises."""

    error: Exception = attrs.field(factory=Mine)
    raises: bool = False

    def __call__(self, _profile: DeviceProfile) -> bool:
        if self.raises:
            raise self.error
        return True


@pytest.mark.parametrize("phase", ["immediately", "its device goes", "it is in no queue", "never"])
async def test_exception_of_a_predicate_is_raised_in_its_own_call_only(phase: str, autojump_clock: MockClock) -> None:
    where = Moody(raises=phase == "immediately")
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        devices = list(world.constellation.devices.values())
        for device in devices:
            await start(nursery, partial(device.run_task, "hold"))
        call = await start(nursery, partial(world.constellation.run_task, "echo", where=where))
        # The device in whose queue the task waits leaves first, so another one is chosen.
        devices.sort(key=lambda device: -device.queued)
        other = await start(nursery, partial(world.constellation.run_task, "echo other"))
        where.raises = phase == "its device goes"
        for device in devices:
            await device.disconnect()
        where.raises = phase == "it is in no queue"
        for device in devices:
            await device.connect()
        await other.ended.wait()
        await call.ended.wait()
        assert other.echo == "other"
        if phase == "never":
            assert call.echo == ""
        else:
            assert call.ending is where.error
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()


async def test_predicate_that_raises_does_not_keep_a_free_device_from_other_tasks(
    autojump_clock: MockClock,
) -> None:
    where = Moody()
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        a, b = world.constellation.devices.values()
        await start(nursery, partial(a.run_task, "hold a"))
        await start(nursery, partial(b.run_task, "hold b"))
        await start(nursery, partial(b.run_task, "hold b"))
        # Both tasks wait in the queue of a.
        first = await start(nursery, partial(world.constellation.run_task, "echo 1", where=where))
        await start(nursery, partial(b.run_task, "hold b"))
        second = await start(nursery, partial(world.constellation.run_task, "echo 2"))
        assert (a.queued, b.queued) == (2, 2)
        where.raises = True
        world.fleet.work.release("b")
        await first.ended.wait()
        await second.ended.wait()
        assert (first.ending, second.echo) == (where.error, "2")
        assert a.queued == 0
        world.fleet.work.release("a")


async def _report_features(peer: ScriptedPeer, *features: JSON) -> None:
    """Answer a request for the device's information."""
    question = await peer.receive()
    assert question.type is ClientMessageType.DEVICE_INFO_REQUEST
    info: JSON = {"device_id": "a", "platform": "linux", "supported_features": list(features)}
    peer.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id=question.request_id, result=info)


@pytest.mark.parametrize("other", [True, False])
async def test_task_leaves_the_queue_of_a_device_whose_information_does_not_fit(
    other: bool, autojump_clock: MockClock
) -> None:
    async with open_bare_peer() as peer, open_world() as world, trio.open_nursery() as nursery:
        world.problems = [peer.stream]
        device = world.constellation.add_device(device_config("a"))
        await peer.receive()
        peer.confirm()
        await _report_features(peer, "gui")
        await device.wait_connected()
        if other:
            world.constellation.add_device(device_config("b", auto_connect=False, capabilities=["gui"]))
        async with device.reserve() as reservation:
            call = await start(nursery, partial(world.constellation.run_task, "echo", capabilities=["gui"]))
            stays = await start(nursery, partial(world.constellation.run_task, "echo", os="linux"))
            assert device.queued == 2
            # A refused or failed task causes another request.
            refused = await start(nursery, partial(reservation.run_task, "echo", on_cancel="abandon"))
            await peer.receive()
            peer.refuse("not today")
            await _report_features(peer, "cli")
            await refused.ended.wait()
            assert isinstance(refused.ending, RequestRejected)
            assert device.queued == 1
            assert not stays.ended.is_set()
            if other:
                assert world.constellation.statistics().unassigned == 1
            else:
                await call.ended.wait()
                assert isinstance(call.ending, NoSuchDevice)
                assert str(call.ending) == "no device for this task any more: none has 'gui'"
        nursery.cancel_scope.cancel()
