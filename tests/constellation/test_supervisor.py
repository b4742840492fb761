"""The supervisor: waits depend on the last error, and permanent errors give the device up with the reason."""

from __future__ import annotations

import socket
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import ConnectFailed, ConnectionOptions, RequestTimeout
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.errors import ConnectionLost, HandshakeRejected, RegistrationRejected
from galaxy_trio.events import DeviceDisconnected, DeviceFailed, DeviceNeedsAttention, DeviceStatus
from tests.constellation.support.fleet import device_config, recording
from tests.constellation.support.scripted_server import LongestWaits, Reaction, open_scripted_server

if TYPE_CHECKING:
    from trio.testing import MockClock

REGISTERED = "client_id 'galaxy_trio-1@a' is already registered"
NOT_CONNECTED = "Target device 'a' is not connected"
CEILINGS = [1, 2, 4, 4, 4, 4, 4, 4, 4, 8, 16, 32, 60, 60, 60]
SLOW_CEILINGS = [1, 2, 4, 8, 16, 32, 60, 60, 60]
"""The ceilings when attempts take so long that the first 30 s of the outage end after a few."""


async def test_waits_have_ceilings_that_double_to_4_s_for_30_s_and_then_to_60_s(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        server.then = ConnectionRefusedError()
        async with open_constellation([device_config("a")], connect=server.connect, random=Random(7)):
            await trio.sleep(600)
            jitter = Random(7)
            expected: list[float] = []
            ceiling = 1
            while ceiling < 60:
                ceiling = min(ceiling, 4 if sum(expected) < 30 else 60)
                expected.append(jitter.uniform(0, ceiling))
                ceiling *= 2
            assert server.waits()[: len(expected)] == [round(wait, 6) for wait in expected]
            assert len(set(expected)) == len(expected) > 14


@pytest.mark.parametrize(
    ("reaction", "seconds"),
    [
        (ConnectionRefusedError(111, "Connection refused"), 0),
        (ConnectionResetError(104, "Connection reset by peer"), 0),
        (socket.gaierror(-2, "Name or service not known"), 0),
        (trio.BrokenResourceError(), 0),
        (trio.TooSlowError(), 0),
        (Reaction.NO_HANDSHAKE, 20),
        (Reaction.NO_CONFIRMATION, 30),
        (Reaction.HANG_UP, 0),
        (Reaction.GARBAGE, 0),
        (Reaction.RESET_AFTER_REGISTRATION, 0),
        (404, 0),
        (426, 0),
        (429, 0),
        (500, 0),
        (503, 0),
        ("some other words", 0),
    ],
    ids=str,
)
async def test_temporary_errors_are_retried_without_limit(
    reaction: Exception | int | str | Reaction, seconds: float, autojump_clock: MockClock
) -> None:
    async with open_scripted_server() as server:
        server.then = reaction
        async with (
            open_constellation(
                [device_config("a")],
                connect=server.connect,
                random=LongestWaits(),
                options=ConnectionOptions(connect_timeout=20, register_timeout=30),
            ) as constellation,
            recording(constellation) as journal,
        ):
            await trio.sleep(1200)
            device = constellation.devices["a"]
            ceilings = SLOW_CEILINGS if seconds else CEILINGS
            assert server.waits()[: len(ceilings)] == [ceiling + seconds for ceiling in ceilings]
            assert device.status in (DeviceStatus.DISCONNECTED, DeviceStatus.CONNECTING, DeviceStatus.REGISTERING)
            assert device.failure is None
            assert device.statistics().failures >= len(ceilings)
            assert device.statistics().problem
        assert journal.of(DeviceNeedsAttention) == []
        assert len(journal.of(DeviceDisconnected)) >= len(ceilings)


async def test_absent_device_is_retried_within_1_s_for_10_s_and_then_within_a_tenth_of_its_absence(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        server.then = NOT_CONNECTED
        async with open_constellation(
            [device_config("a")], connect=server.connect, random=LongestWaits()
        ) as constellation:
            await trio.sleep(3600)
            device = constellation.devices["a"]
            assert (device.connected, device.failure) == (False, None)
            assert server.waits()[:11] == [1] * 11
            tries = [each.at for each in server.attempts]
            for at, wait in zip(tries[11:], server.waits()[11:], strict=False):
                assert wait == pytest.approx(min(at / 10, 60))
            # A device that stays away does not cause a connection every second.
            assert len(tries) < 120


# The longer the absence, the more attempts in a test: so fewer examples.
@pytest.mark.parametrize(("away", "devices"), [(3, 20), (30, 8), (300, 4), (3000, 2)])
async def test_returning_device_is_connected_within_1_s_or_a_tenth_of_its_absence(
    away: float, devices: int, autojump_clock: MockClock
) -> None:
    async with open_scripted_server() as server:
        server.then = NOT_CONNECTED
        configs = [device_config(f"d{number}") for number in range(devices)]
        async with open_constellation(configs, connect=server.connect, random=Random(away)) as constellation:
            await trio.sleep(away)
            server.then = Reaction.ACCEPT
            await constellation.wait_connected()
            assert trio.current_time() - away <= min(max(1, away / 10), 60)


@pytest.mark.parametrize("away", [3, 30, 300, 3000])
async def test_device_that_returns_just_after_an_attempt_is_connected_within_the_longest_wait(
    away: float, autojump_clock: MockClock
) -> None:
    async with open_scripted_server() as server:
        server.then = NOT_CONNECTED
        async with open_constellation(
            [device_config("a")], connect=server.connect, random=LongestWaits()
        ) as constellation:
            await trio.sleep(away)
            tries, last = len(server.attempts), server.attempts[-1].at
            await trio.sleep_until(last + min(max(1, last / 10), 60) + 0.001)
            assert len(server.attempts) == tries + 1
            server.then = Reaction.ACCEPT
            back = trio.current_time()
            await constellation.wait_connected()
            longest = min(max(1, back / 10), 60)
            assert longest * 0.98 <= trio.current_time() - back <= longest


async def test_device_that_needs_10_s_to_register_after_its_server_returned_is_not_given_up(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        config = device_config("a", max_retries=3)
        async with open_constellation([config], connect=server.connect, random=Random(3)) as constellation:
            await constellation.wait_connected()
            await trio.sleep(60)
            server.then = NOT_CONNECTED
            server.peer.reset()
            await trio.sleep(10)
            assert len(server.attempts) > 10
            server.then = Reaction.ACCEPT
            await constellation.wait_connected()


async def test_silent_connection_is_lost_after_the_liveness_timeout(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        async with open_constellation(
            [device_config("a")],
            connect=server.connect,
            random=LongestWaits(),
            options=ConnectionOptions(liveness_timeout=50),
        ) as constellation:
            await constellation.wait_connected()
            server.peer.go_silent()
            assert await constellation.devices["a"].wait_status(DeviceStatus.DISCONNECTED)
            assert trio.current_time() == 50
            await constellation.wait_connected()
            assert trio.current_time() == 51


async def test_client_id_that_is_still_registered_is_retried_every_5_s_and_warned_of_every_60_s(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        server.then = REGISTERED
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            constellation.subscribe() as events,
        ):
            attention: list[float] = []
            async for event in events:
                if isinstance(event, DeviceNeedsAttention):
                    assert "already registered" in event.reason
                    attention.append(trio.current_time())
                    if len(attention) == 2:
                        break
            assert attention == [60, 120]
            assert server.waits() == [5] * 24
            assert len(set(server.clients)) == 1
            server.then = Reaction.ACCEPT
            await constellation.wait_connected()
            assert trio.current_time() == 125


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_token_is_retried_every_300_s_with_a_warning_each_time(
    status: int, autojump_clock: MockClock
) -> None:
    async with open_scripted_server() as server:
        server.script = [status] * 3
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            assert server.waits() == [300] * 3
        attention = [event for event in journal.of(DeviceNeedsAttention) if isinstance(event, DeviceNeedsAttention)]
        assert [f"HTTP status {status}" in event.reason for event in attention] == [True] * 3


async def test_only_a_connection_that_lived_60_s_resets_the_backoff(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.script = [OSError()] * 3
        async with open_constellation(
            [device_config("a")],
            connect=server.connect,
            random=LongestWaits(),
            options=ConnectionOptions(heartbeat_interval=20),
        ) as constellation:
            await constellation.wait_connected()
            assert (trio.current_time(), constellation.devices["a"].statistics().failures) == (7, 0)
            await trio.sleep(59)
            server.peer.reset()
            await constellation.devices["a"].wait_status(DeviceStatus.DISCONNECTED)
            await constellation.wait_connected()
            assert trio.current_time() == 7 + 59 + 8
            await trio.sleep(60)
            server.peer.reset()
            await constellation.devices["a"].wait_status(DeviceStatus.DISCONNECTED)
            await constellation.wait_connected()
            assert trio.current_time() == 7 + 59 + 8 + 60 + 1
            assert constellation.devices["a"].statistics().connects == 3


@pytest.mark.parametrize("delay", [0.25, 200.0])
async def test_reconnect_delay_may_exceed_the_longest_wait(delay: float, autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.then = OSError()
        async with open_constellation(
            [device_config("a")], connect=server.connect, random=LongestWaits(), reconnect_delay=delay
        ):
            await trio.sleep(1000)
            assert server.waits()[:3] == ([0.25, 0.5, 1.0] if delay < 1 else [200.0] * 3)


@pytest.mark.parametrize("max_retries", [0, 3])
async def test_max_retries_limits_the_attempts(max_retries: int, autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.then = 503
        config = device_config("a", max_retries=max_retries)
        async with (
            open_constellation([config], connect=server.connect, random=LongestWaits()) as constellation,
            recording(constellation) as journal,
        ):
            device = constellation.devices["a"]
            with pytest.raises(HandshakeRejected, match="503"):
                await device.run_task("waits for it")
            assert len(server.attempts) == max_retries + 1
            assert device.status is DeviceStatus.FAILED
            assert device.statistics().failures == max_retries + 1
            await trio.sleep(1000)
            assert len(server.attempts) == max_retries + 1
            assert (device.statistics().next_try, isinstance(device.failure, HandshakeRejected)) == (None, True)
            server.script = [OSError()]
            server.then = Reaction.ACCEPT
            if max_retries:
                await device.connect()
                assert (device.status, device.failure) == (DeviceStatus.IDLE, None)
            else:
                with pytest.raises(ConnectFailed):
                    await device.connect()
        assert len(journal.of(DeviceFailed)) == (1 if max_retries else 2)


async def test_short_connection_does_not_reset_the_retries(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.then = Reaction.RESET_AFTER_REGISTRATION
        config = device_config("a", max_retries=2)
        async with open_constellation([config], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            await device.wait_status(DeviceStatus.FAILED)
            with pytest.raises(ConnectionLost):
                await device.wait_connected()
            assert len(server.attempts) == 3


@pytest.mark.slow
async def test_attempts_of_200_devices_after_a_common_outage_are_spread(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        configs = [device_config(f"d{number}") for number in range(200)]
        async with open_constellation(configs, connect=server.connect, random=Random(4)) as constellation:
            await constellation.wait_connected()
            server.then = ConnectionRefusedError()
            lost_at, before = trio.current_time(), len(server.attempts)
            for each in server.attempts:
                assert each.peer is not None
                each.peer.reset()
            await trio.sleep(60)
            first: dict[str, float] = {}
            for each in server.attempts[before:]:
                first.setdefault(each.device_id, each.at - lost_at)
            times = sorted(first.values())
            assert len(times) == len(set(times)) == 200
            assert times[-1] <= 1
            shares = [sum(tenth / 10 <= time < (tenth + 1) / 10 for time in times) / 200 for tenth in range(10)]
            assert 0.05 <= min(shares) <= max(shares) <= 0.16, shares
            # The attempts stay spread: no 50 ms contain more than 30.
            everything = sorted(each.at for each in server.attempts[before:])
            most = max(sum(at <= other < at + 0.05 for other in everything) for at in everything)
            assert most <= 30, most


async def test_temporary_errors_are_not_raised_in_waiting_calls(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.then = NOT_CONNECTED
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            with trio.move_on_after(500) as waiting:
                await constellation.wait_connected()
            assert waiting.cancelled_caught
            with pytest.raises(RequestTimeout, match="no information about device 'a' within 7 s"):
                await constellation.devices["a"].device_info(timeout=7)
            statistics = constellation.devices["a"].statistics()
            assert statistics.problem is not None
            assert NOT_CONNECTED in statistics.problem


async def test_reconnect_makes_another_attempt_after_the_device_was_given_up(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.then = "no"
        config = device_config("a", max_retries=0)
        async with open_constellation([config], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            for tries in range(1, 4):
                with pytest.raises(RegistrationRejected, match="no"):
                    await (device.wait_connected() if tries == 1 else device.reconnect())
                assert len(server.attempts) == tries
            server.then = Reaction.ACCEPT
            await device.reconnect()
            assert device.status is DeviceStatus.IDLE
