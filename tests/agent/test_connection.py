"""A device's connection: registration, heartbeats, messages for the device."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectionOptions,
    ConnectTimeout,
    DeviceInfo,
    GalaxyError,
    HandshakeRejected,
    Platform,
    RegistrationRejected,
    open_connection,
)
from galaxy_trio._codec.codec import structure_device_info
from galaxy_trio.agent import DeviceConnection, open_device_connection
from galaxy_trio.messages import JSON, ClientMessageType, ClientType, ServerMessageType
from galaxy_trio.testing import PEER_URL, FaultyStream, ScriptedPeer, open_bare_peer, open_memory_server
from tests.connection.support.recordings import text_frames

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

DEVICE = "device_001"
_REGISTRATION = text_frames("registration_ok")[0].json()
_METADATA = cast("dict[str, JSON]", _REGISTRATION["metadata"])
RECORDED = structure_device_info(_METADATA["system_info"])
SYSTEM_INFO = DeviceInfo(DEVICE, Platform.LINUX)


@asynccontextmanager
async def open_registered_device(
    *, system_info: DeviceInfo = SYSTEM_INFO, heartbeat_interval: float = 30.0, liveness_timeout: float = 180.0
) -> AsyncGenerator[tuple[ScriptedPeer, DeviceConnection]]:
    """Open a registered device connection and its scripted server."""
    async with open_bare_peer() as peer:
        # The confirmation is sent before the registration; it stays in the stream until the device reads it.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_confirm, peer)
            async with open_device_connection(
                PEER_URL,
                DEVICE,
                system_info=system_info,
                stream=peer.stream,
                options=ConnectionOptions(heartbeat_interval=heartbeat_interval, liveness_timeout=liveness_timeout),
            ) as connection:
                yield peer, connection


async def _confirm(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.confirm()


async def test_registration_matches_the_recording() -> None:
    sent: list[dict[str, object]] = []

    async def answer(peer: ScriptedPeer) -> None:
        sent.append(json.loads(await peer.receive_text()))
        peer.confirm()

    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(answer, peer)
        async with open_device_connection(PEER_URL, DEVICE, system_info=RECORDED, stream=peer.stream) as connection:
            assert connection.device_id == DEVICE
    [registration] = sent
    assert registration.pop("timestamp")
    metadata = cast("dict[str, JSON]", registration["metadata"])
    assert isinstance(metadata.pop("registration_time"), str)
    recorded = {name: value for name, value in _METADATA.items() if name != "registration_time"}
    # Empty members may be absent.
    info, expected = (cast("dict[str, JSON]", data.pop("system_info")) for data in (metadata, recorded))
    assert info == {name: value for name, value in expected.items() if value != {} or name in info}
    assert registration == {**_REGISTRATION, "metadata": recorded}


async def test_unknown_platform_is_sent_unchanged() -> None:
    sent: list[dict[str, JSON] | None] = []

    async def answer(peer: ScriptedPeer) -> None:
        sent.append((await peer.receive()).metadata)
        peer.confirm()

    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(answer, peer)
        system_info = DeviceInfo(DEVICE, "haiku", extra={"rack": 7})
        async with open_device_connection(PEER_URL, DEVICE, system_info=system_info, stream=peer.stream):
            pass
    [metadata] = sent
    assert metadata is not None
    assert metadata["platform"] == "haiku"
    info = cast("dict[str, JSON]", metadata["system_info"])
    assert (info["platform"], info["rack"], info["device_id"]) == ("haiku", 7, DEVICE)


async def test_constellation_receives_the_devices_information() -> None:
    async with open_memory_server() as server:
        async with open_device_connection(server.url, DEVICE, system_info=RECORDED, stream=server.connect()):
            assert server.devices == [DEVICE]
            async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
                assert await connection.device_info() == RECORDED
        await trio.testing.wait_all_tasks_blocked()
        assert server.devices == []


async def test_heartbeats_are_sent_until_the_block_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with open_registered_device(heartbeat_interval=7) as (peer, connection):
        start = trio.current_time()
        for count in range(1, 4):
            beat = await peer.receive()
            assert trio.current_time() - start == pytest.approx(7 * count)
            assert (beat.type, beat.client_type) == (ClientMessageType.HEARTBEAT, ClientType.DEVICE)
            assert (beat.client_id, beat.status) == (DEVICE, "ok")
            # Heartbeats continue after an acknowledgement, a refusal, and no reply.
            if count == 1:
                peer.answer(beat)
            elif count == 2:
                peer.refuse("not now")
        assert not connection.closed
        assert connection.recent_messages == []
    await trio.sleep(100)
    assert peer.received_nowait() == []


async def test_token_and_headers_are_sent_and_the_token_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_confirm, peer)
        async with open_device_connection(
            PEER_URL,
            DEVICE,
            system_info=SYSTEM_INFO,
            token="s3cret",
            headers=[("X-Rack", "7")],
            stream=peer.stream,
        ) as connection:
            assert peer.path == "/ws?token=s3cret"
            assert (b"x-rack", b"7") in peer.headers
            assert "s3cret" not in repr(connection)
    assert "s3cret" not in caplog.text


async def test_recent_messages_are_the_last_100_oldest_first() -> None:
    async with open_registered_device() as (peer, connection):
        peer.confirm()
        peer.refuse("an error of no message")
        peer.send_text("{not json")
        for number in range(3):
            peer.send(ServerMessageType.TASK_END, session_id=f"s{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert [message.session_id for message in connection.recent_messages] == ["s0", "s1", "s2"]
        for number in range(3, 150):
            peer.send(ServerMessageType.COMMAND, session_id=f"s{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert [message.session_id for message in connection.recent_messages] == [f"s{n}" for n in range(50, 150)]
        # The list is a copy.
        connection.recent_messages.clear()
        assert len(connection.recent_messages) == 100
        assert not connection.closed


async def test_it_receives_the_end_of_tasks_on_it() -> None:
    async with open_memory_server() as server:
        async with (
            open_device_connection(server.url, DEVICE, system_info=SYSTEM_INFO, stream=server.connect()) as device,
            open_connection(server.url, DEVICE, stream=server.connect()) as connection,
        ):
            await connection.run_task("hello", task_id="t1")
            await trio.testing.wait_all_tasks_blocked()
            [end] = device.recent_messages
            assert (end.type, end.result) == (ServerMessageType.TASK_END, {"echo": "hello"})


async def test_message_above_the_limit_ends_the_connection() -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_confirm, peer)
        async with open_device_connection(
            PEER_URL,
            DEVICE,
            system_info=SYSTEM_INFO,
            stream=peer.stream,
            options=ConnectionOptions(max_message_size=5000),
        ) as connection:
            peer.send(ServerMessageType.TASK_END, result="x" * 4000)
            await trio.testing.wait_all_tasks_blocked()
            assert len(connection.recent_messages) == 1
            peer.send(ServerMessageType.TASK_END, result="x" * 5000)
            with trio.fail_after(60):
                lost = await connection.wait_closed()
            assert lost is not None
            assert lost.code == 1009


async def test_refusal_is_raised_in_the_servers_words() -> None:
    async with open_memory_server() as server:
        async with open_device_connection(server.url, DEVICE, system_info=SYSTEM_INFO, stream=server.connect()):
            stream = FaultyStream(server.connect())
            with trio.fail_after(60), pytest.raises(RegistrationRejected) as caught:
                async with open_device_connection(server.url, DEVICE, system_info=SYSTEM_INFO, stream=stream):
                    raise AssertionError("not reached")
        assert (
            caught.value.words
            == "client_id 'device_001' is already registered; duplicate registrations are not allowed"
        )
        assert "'device_001'" in str(caught.value)
        assert stream.closed


async def _opening_fails(
    peer: ScriptedPeer, *, register_timeout: float = 30, url: str = PEER_URL, system_info: DeviceInfo = SYSTEM_INFO
) -> GalaxyError:
    """Return the exception of an opening that fails, and check that nothing stays open."""
    with trio.fail_after(100), pytest.raises(GalaxyError) as caught:
        async with open_device_connection(
            url,
            DEVICE,
            system_info=system_info,
            stream=peer.stream,
            options=ConnectionOptions(register_timeout=register_timeout),
        ):
            raise AssertionError("not reached")
    assert peer.stream.closed
    return caught.value


async def test_rejected_handshake_is_raised_with_its_status() -> None:
    async with open_bare_peer() as peer:
        peer.reject_with = 403
        error = await _opening_fails(peer)
        assert isinstance(error, HandshakeRejected)
        assert error.status_code == 403


async def test_unconfirmed_registration_raises_connect_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bare_peer() as peer:
        error = await _opening_fails(peer, register_timeout=7)
        assert isinstance(error, ConnectTimeout)
        assert str(error) == "the server of device 'device_001' did not confirm the registration within 7 s"
        assert trio.current_time() == pytest.approx(7)


async def test_unanswered_handshake_raises_connect_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, _ = trio.testing.memory_stream_pair()
    stream = FaultyStream(near)
    with trio.fail_after(100), pytest.raises(ConnectTimeout):
        async with open_device_connection(
            PEER_URL, DEVICE, system_info=SYSTEM_INFO, stream=stream, options=ConnectionOptions(connect_timeout=7)
        ):
            raise AssertionError("not reached")
    assert trio.current_time() == pytest.approx(7)
    assert stream.closed


async def test_loss_during_the_registration_raises_connect_failed() -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def leave() -> None:
            await peer.receive()
            await peer.close(1001, "restarting")

        nursery.start_soon(leave)
        error = await _opening_fails(peer)
        assert isinstance(error, ConnectFailed)
        assert "'restarting'" in str(error)
        assert isinstance(error.__cause__, ConnectionLost)


async def test_broken_confirmation_raises_connect_failed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def confirm_broken() -> None:
            await peer.receive()
            peer.send_json({"type": "heartbeat", "status": 5})

        nursery.start_soon(confirm_broken)
        error = await _opening_fails(peer, register_timeout=7)
        assert isinstance(error, ConnectFailed)
        assert "could not register with" in str(error)


async def test_system_information_that_is_not_json_raises_connect_failed() -> None:
    async with open_bare_peer() as peer:
        error = await _opening_fails(peer, system_info=DeviceInfo(DEVICE, Platform.LINUX, hostname="\ud800"))
        assert isinstance(error, ConnectFailed)
        assert "a lone surrogate" in str(error)
        assert peer.received_nowait() == []


async def test_invalid_url_raises_config_error() -> None:
    async with open_bare_peer() as peer:
        assert isinstance(await _opening_fails(peer, url="http://example.com"), ConfigError)


async def test_cancelling_an_opening_closes_immediately() -> None:
    async with open_bare_peer() as peer:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    await peer.receive()
                    scope.cancel()

                nursery.start_soon(cancel)
                async with open_device_connection(PEER_URL, DEVICE, system_info=SYSTEM_INFO, stream=peer.stream):
                    raise AssertionError("not reached")
        assert scope.cancelled_caught
        assert peer.stream.closed
        assert (await peer.wait_ended()).code == 1006


async def test_leaving_the_block_closes_with_a_close_handshake() -> None:
    async with open_bare_peer() as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_confirm, peer)
            async with open_device_connection(
                PEER_URL, DEVICE, system_info=SYSTEM_INFO, stream=peer.stream
            ) as connection:
                pass
        assert connection.closed
        assert await connection.wait_closed() is None
        assert peer.stream.closed
        assert (await peer.wait_ended()).code == 1000


async def test_loss_is_reported_and_the_block_continues(autojump_clock: trio.testing.MockClock) -> None:
    async with open_registered_device(heartbeat_interval=7) as (peer, connection):
        await peer.close(1011, "out of order")
        lost = await connection.wait_closed()
        assert isinstance(lost, ConnectionLost)
        assert (lost.code, connection.closed) == (1011, True)
        assert str(lost) == (
            "the connection to the server of device 'device_001' was lost: "
            "the WebSocket was closed with 1011, internal error 'out of order'"
        )
        assert peer.stream.closed
        # The heartbeats have stopped without an exception.
        await trio.sleep(100)


async def test_silent_server_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with open_registered_device(heartbeat_interval=7, liveness_timeout=50) as (peer, connection):
        peer.go_silent()
        lost = await connection.wait_closed()
        assert trio.current_time() == pytest.approx(50)
        assert isinstance(lost, ConnectionLost)
        assert lost.reason == "nothing was received for 50 s"


async def test_exception_of_the_block_comes_out_unchanged() -> None:
    error = ValueError("mine")
    async with open_memory_server() as server:
        with pytest.raises(ValueError, match="mine") as caught:
            async with open_device_connection(server.url, DEVICE, system_info=SYSTEM_INFO, stream=server.connect()):
                raise error
    assert caught.value is error
