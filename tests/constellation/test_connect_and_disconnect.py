"""Connecting, disconnecting and reconnecting by call, at any moment and in the step of another event."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio import GalaxyError
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import DeviceConnected, DeviceDisconnected, DeviceFailed, DeviceStatus, StatusChanged
from galaxy_trio.messages import ServerMessageType
from tests.constellation.support.fleet import device_config, recording
from tests.constellation.support.scripted_server import LongestWaits, Reaction, open_scripted_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio.testing import MockClock

    from galaxy_trio.constellation.device import Device
    from galaxy_trio.messages import JSON

IDLE, DISCONNECTED, CONNECTING, REGISTERING, FAILED = (
    DeviceStatus.IDLE,
    DeviceStatus.DISCONNECTED,
    DeviceStatus.CONNECTING,
    DeviceStatus.REGISTERING,
    DeviceStatus.FAILED,
)


async def wait_for(act: Callable[[], Awaitable[None]]) -> None:
    """Connect, and ignore that the device was given up: other tests check that error."""
    with suppress(GalaxyError, trio.ClosedResourceError):
        await act()


async def test_device_without_auto_connect_stays_disconnected_until_connect(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        configs = [device_config("a"), device_config("b", auto_connect=False)]
        async with open_constellation(configs, connect=server.connect) as constellation:
            await constellation.wait_connected()
            device = constellation.devices["b"]
            await trio.sleep(1000)
            assert (device.status, len(server.attempts)) == (DISCONNECTED, 1)
            await device.disconnect()
            await device.connect()
            assert device.status is IDLE
            await device.connect()
            assert len(server.attempts) == 2


async def test_disconnected_device_stays_disconnected_and_leaves_no_client_on_the_server(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            device = constellation.devices["a"]
            await device.wait_connected()
            await device.disconnect()
            assert device.status is DISCONNECTED
            assert server.peer.stream.closed
            await trio.sleep(1000)
            assert (len(server.attempts), device.statistics().connection) == (1, None)
            await device.disconnect()
        [event] = journal.of(DeviceDisconnected)
        assert isinstance(event, DeviceDisconnected)
        assert (event.next_try, "this side disconnected it" in event.reason) == (None, True)


@pytest.mark.parametrize(
    "reaction", [OSError(), Reaction.NO_HANDSHAKE, Reaction.NO_CONFIRMATION, "already registered", 403], ids=str
)
async def test_disconnecting_ends_an_attempt_and_the_wait_for_the_next_one(
    reaction: Exception | int | str | Reaction, autojump_clock: MockClock
) -> None:
    async with open_scripted_server() as server:
        server.then = reaction
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            await constellation.devices["a"].disconnect()
            assert trio.current_time() == before
            assert constellation.devices["a"].status is DISCONNECTED
            assert constellation.devices["a"].statistics().next_try is None
            await trio.sleep(1000)
            assert len(server.attempts) == 1


async def test_reconnecting_ends_the_wait_for_the_next_attempt_and_connecting_does_not(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        server.script = [403]
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            device = constellation.devices["a"]
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(100):
                await device.connect()
            assert device.status is DISCONNECTED
            assert len(server.attempts) == 1
            await device.reconnect()
            assert (device.status, trio.current_time()) == (IDLE, 100)
        statuses = [event.status for event in journal.of(StatusChanged) if isinstance(event, StatusChanged)]
        assert statuses[:5] == [CONNECTING, DISCONNECTED, CONNECTING, REGISTERING, IDLE]


async def test_reconnecting_closes_the_connection_and_opens_another_one_immediately(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            device = constellation.devices["a"]
            await device.wait_connected()
            first = server.peer
            await device.reconnect()
            assert first.stream.closed
            assert device.status is IDLE
            assert trio.current_time() == 0
            assert device.statistics().connects == 2
        statuses = [event.status for event in journal.of(StatusChanged) if isinstance(event, StatusChanged)]
        assert statuses[:7] == [CONNECTING, REGISTERING, IDLE, DISCONNECTED, CONNECTING, REGISTERING, IDLE]
        published = [event for event in journal.events if isinstance(event, DeviceConnected | DeviceDisconnected)]
        assert [type(event) for event in published[:3]] == [DeviceConnected, DeviceDisconnected, DeviceConnected]
        assert isinstance(published[1], DeviceDisconnected)
        assert published[1].next_try is not None


async def test_reconnecting_while_the_information_is_awaited_starts_over(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.info = [None, {"platform": "darwin"}]
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            await trio.testing.wait_all_tasks_blocked()
            assert (device.status, len(server.clients)) == (REGISTERING, 1)
            await device.reconnect()
            assert (device.profile.os, trio.current_time()) == ("darwin", 0)


async def test_disconnect_returns_though_connect_is_called_after_it(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            await device.wait_connected()
            async with open_background() as background:
                with trio.fail_after(5):
                    async with trio.open_nursery() as nursery:
                        for _ in range(3):
                            nursery.start_soon(device.disconnect)
                            background.start_soon(device.connect)
                            background.start_soon(device.reconnect)
            await device.connect()
            assert device.status is IDLE


async def test_connecting_while_the_connection_is_being_closed_connects_immediately(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            await device.wait_connected()
            with trio.fail_after(1):
                # It ends after `disconnect` has returned.
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(device.disconnect)
                    await device.wait_status(DISCONNECTED)
                    await device.connect()
            assert (device.status, len(server.attempts), trio.current_time()) == (IDLE, 2, 0)
            assert device.statistics().failures == 0


async def test_disconnect_during_an_attempt_returns_though_another_attempt_starts_immediately(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server, open_background() as background:
        server.then = Reaction.NO_HANDSHAKE
        # The order of the two is random.
        configs = [device_config(f"d{number}") for number in range(30)]
        async with open_constellation(configs, connect=server.connect) as constellation:
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(1):
                async with trio.open_nursery() as nursery:
                    for device in constellation.devices.values():
                        nursery.start_soon(device.disconnect)
                        background.start_soon(wait_for, device.connect)
            await trio.testing.wait_all_tasks_blocked()
            assert {device.status for device in constellation.devices.values()} <= {CONNECTING, DISCONNECTED}


async def test_disconnect_returns_when_the_constellation_is_closed(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server, trio.open_nursery() as nursery:
        done = trio.Event()

        async def disconnect(device: Device) -> None:
            await device.disconnect()
            done.set()

        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            await constellation.wait_connected()
            server.peer.stream.stall()
            nursery.start_soon(disconnect, constellation.devices["a"])
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await done.wait()


@pytest.mark.parametrize("max_retries", [None, 0])
@pytest.mark.parametrize("steps", range(10))
async def test_disconnecting_in_the_step_of_a_loss_starts_no_attempt_and_publishes_the_loss_once(
    steps: int, max_retries: int | None, autojump_clock: MockClock
) -> None:
    async def disconnect(device: Device) -> None:
        await device.wait_status(DISCONNECTED)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        if max_retries is None or device.status is DISCONNECTED:
            await device.disconnect()

    async with open_scripted_server() as server:
        # The order of a device's trio tasks is random.
        configs = [device_config(f"d{number}", max_retries=max_retries) for number in range(10)]
        async with (
            open_constellation(
                configs, connect=server.connect, random=LongestWaits(), reconnect_delay=50
            ) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            async with trio.open_nursery() as nursery:
                for device in constellation.devices.values():
                    nursery.start_soon(disconnect, device)
                await trio.testing.wait_all_tasks_blocked()
                for each in server.attempts:
                    assert each.peer is not None
                    each.peer.reset()
            assert trio.current_time() == 0
            if steps == 0:
                assert {device.status for device in constellation.devices.values()} == {DISCONNECTED}
            await trio.testing.wait_all_tasks_blocked()
        for name in constellation.devices:
            assert len(journal.of(DeviceDisconnected, name)) == 1


@pytest.mark.parametrize("steps", range(25))
async def test_disconnecting_in_the_step_in_which_the_information_arrives_leaves_the_device_disconnected(
    steps: int, autojump_clock: MockClock
) -> None:
    before: dict[str, bool] = {}

    async def disconnect(device: Device) -> None:
        before[device.device_id] = device.connected
        await device.disconnect()

    async with open_scripted_server() as server:
        server.info = [None]
        configs = [device_config(f"d{number}") for number in range(10)]
        async with (
            open_constellation(configs, connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            await trio.testing.wait_all_tasks_blocked()
            for each in server.attempts:
                assert each.peer is not None
                known: JSON = {"device_id": each.device_id, "platform": "linux"}
                each.peer.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id="device_info_1", result=known)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                for device in constellation.devices.values():
                    nursery.start_soon(disconnect, device)
        for name, connected in before.items():
            assert len(journal.of(DeviceConnected, name)) == connected


@pytest.mark.parametrize("seconds", [0.0, 0.5, 100.0])
async def test_constellation_closes_immediately_whatever_its_devices_wait_for(
    seconds: float, autojump_clock: MockClock
) -> None:
    async with open_scripted_server() as server:
        server.scripts = {
            "refused": [OSError()] * 99,
            "forbidden": [403] * 99,
            "silent": [Reaction.NO_HANDSHAKE] * 99,
            "unconfirmed": [Reaction.NO_CONFIRMATION] * 99,
            "registered": ["already registered"] * 99,
        }
        names = [*server.scripts, "up", "lost", "down"]
        configs = [device_config(name, auto_connect=name != "down") for name in names]
        async with open_constellation(configs, connect=server.connect) as constellation:
            await constellation.devices["up"].wait_connected()
            await constellation.devices["lost"].wait_connected()
            await trio.sleep(seconds)
            next(each.peer for each in server.attempts if each.device_id == "lost" and each.peer).reset()
            devices = list(constellation.devices.values())
            before = trio.current_time()
        assert trio.current_time() <= before + 3
        assert [device.status for device in devices] == [DISCONNECTED] * len(names)
        for device in devices:
            with pytest.raises(trio.ClosedResourceError):
                await device.connect()


@settings(max_examples=60)
@given(
    acts=st.lists(
        st.tuples(
            st.sampled_from(
                ["connect", "disconnect", "reconnect", "lose", "lose", "refuse", "forbid", "welcome", "break"]
            ),
            st.sampled_from([0.0, 0.0, 0.3, 2.0, 70.0]),
        ),
        max_size=12,
    )
)
def test_status_is_correct_after_any_sequence_of_actions_and_the_device_can_be_connected(
    acts: list[tuple[str, float]],
) -> None:
    async def play() -> None:
        async with open_scripted_server() as server, open_background() as nursery:
            config = device_config("a", max_retries=3)
            async with (
                open_constellation([config], connect=server.connect, random=Random(1)) as constellation,
                recording(constellation) as journal,
            ):
                device = constellation.devices["a"]
                for act, seconds in acts:
                    match act:
                        case "lose":
                            if server.attempts and (peer := server.attempts[-1].peer) is not None:
                                peer.reset()
                        case "refuse":
                            server.then = OSError()
                        case "break":
                            server.info = [{"platform": 7}, None, "nothing", {"platform": "linux"}]
                        case "forbid":
                            server.then = 403
                        case "welcome":
                            server.then = Reaction.ACCEPT
                        case _:
                            nursery.start_soon(wait_for, getattr(device, act))
                    await trio.sleep(seconds)
                server.then, server.info = Reaction.ACCEPT, [{"platform": "linux"}]
                # Let what was started in the last step begin before the next step.
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(10):
                    await device.disconnect()
                assert (device.status in (DISCONNECTED, FAILED), device.connected) == (True, False)
                with trio.fail_after(10):
                    await device.reconnect()
                    assert (await device.device_info()).platform == "linux"
                await trio.testing.wait_all_tasks_blocked()
                assert device.status is IDLE
                open_now = [each for each in server.attempts if each.peer is not None and not each.peer.stream.closed]
                assert len(open_now) == 1
            _check_story(journal.events)

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


def _check_story(events: Sequence[object]) -> None:
    """Check that each status follows from the one before, and that each connection begins and ends."""
    status, connected = None, False
    for event in events:
        match event:
            case StatusChanged():
                assert status in (None, event.previous)
                assert event.status is not event.previous
                status = event.status
            case DeviceFailed():
                assert (status, connected) == (FAILED, False)
            case DeviceConnected():
                assert (status, connected) == (IDLE, False)
                connected = True
            case DeviceDisconnected():
                assert status is not IDLE
                connected = False
            case _:
                pass
