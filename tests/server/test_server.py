"""The server: it answers as the recorded one did, keeps its limits, and a task ends in exactly one way whatever happens around it."""

from __future__ import annotations

import gc
import json
import logging
import math
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest
import trio
import trio.testing
import trustme

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    HandshakeRejected,
    RequestRejected,
    TaskFailed,
    open_connection,
)
from galaxy_trio._transport.inbound_limits import MAX_HEAD
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio._transport.websocket import Transport
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import ClientMessage, DeviceInfo, Platform
from galaxy_trio.server import Server, ServerLimits, ServerStatistics, ServerTask, open_server
from galaxy_trio.server.client_handler import Peer
from galaxy_trio.testing import FaultyStream, MemoryServer, open_memory_server
from tests.connection.support.recordings import text_frames
from tests.server.support.raw_client import Members, RawClient, open_raw_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

DEVICE, CONSTELLATION = "device_001", "demo@device_001"
_DEVICE_REGISTERS, _, _CONSTELLATION_REGISTERS, _ = text_frames("registration_ok")


# ---- the cast


async def recorded_session(task: ServerTask) -> object:
    """The sessions that were scripted for the recordings."""
    kind, _, argument = task.request.partition(":")
    match kind:
        case "echo":
            return {"echo": argument}
        case "fail":
            raise RuntimeError(argument)
        case "err":
            raise TaskFailed("", result={"failure": "session ended with an error"})
        case _:
            await trio.sleep(float(argument))
            return {"slept": argument}


@attrs.frozen
class Cast:
    """A server with a device and a constellation."""

    server: MemoryServer
    device: RawClient
    constellation: RawClient

    async def clients_are_well(self) -> None:
        """Both are connected, and get an answer to the next that they say."""
        self.device.send(type="heartbeat", status="ok")
        self.constellation.send(type="heartbeat", status="ok", client_type="constellation")
        for client in (self.device, self.constellation):
            assert (await client.receive())["type"] == "heartbeat"


async def _register(client: RawClient, text: str) -> None:
    client.send_text(text)
    assert (await client.receive())["type"] == "heartbeat"


def _device_registers(name: str = DEVICE, **system_info: object) -> str:
    metadata = {"platform": "linux", "system_info": {"device_id": name, "platform": "linux", **system_info}}
    return json.dumps({"type": "register", "status": "ok", "client_id": name, "metadata": metadata})


def _constellation_registers(name: str = CONSTELLATION, target: str | None = DEVICE) -> str:
    registration = {"type": "register", "status": "ok", "client_type": "constellation"}
    return json.dumps({**registration, "client_id": name, "target_id": target})


@asynccontextmanager
async def open_cast(
    session: Callable[[ServerTask], Awaitable[object]] = recorded_session, limits: ServerLimits | None = None
) -> AsyncGenerator[Cast]:
    """A server, and the two clients of the recordings, registered."""
    async with (
        open_memory_server(session=session, limits=limits) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await _register(device, _DEVICE_REGISTERS.text)
        await _register(constellation, _CONSTELLATION_REGISTERS.text)
        yield Cast(server, device, constellation)


def _submit(client: RawClient, session_id: str, request: str = "echo:x", target: str = DEVICE) -> None:
    client.send(
        type="task",
        status="continue",
        client_type="constellation",
        session_id=session_id,
        target_id=target,
        request=request,
    )


async def _is_accepted(client: RawClient, session_id: str) -> None:
    accepted = await client.receive()
    assert (accepted["type"], accepted["session_id"]) == ("heartbeat", session_id)


async def _ending(client: RawClient, session_id: str) -> tuple[object, object, object]:
    """How a task ended, as a client is told next: status, result and error."""
    end = await client.receive()
    assert (end["type"], end["session_id"]) == ("task_end", session_id)
    return end["status"], end.get("result"), end.get("error")


def _is_error(message: Members) -> str:
    """The words of an error, which names no message."""
    assert (message["type"], message["status"]) == ("error", "error")
    assert "session_id" not in message
    return str(message["error"])


async def sleep_forever(task: ServerTask) -> None:
    await trio.sleep_forever()


@attrs.define
class Witnesses:
    """Sessions that run until they are cancelled, or let go."""

    started: list[ServerTask] = attrs.field(factory=list[ServerTask])
    cancelled: list[str] = attrs.field(factory=list[str])
    let_go: trio.Event = attrs.field(factory=trio.Event)

    async def session(self, task: ServerTask) -> object:
        self.started.append(task)
        try:
            await self.let_go.wait()
        except trio.Cancelled:
            self.cancelled.append(task.session_id)
            raise
        return task.request


# ---- replies


async def test_a_binary_frame_is_answered_with_an_error_and_the_connection_lives() -> None:
    async with open_cast() as cast:
        await cast.device.send_binary(b"\x00\x01\x02")
        assert "a binary frame of 3 bytes" in _is_error(await cast.device.receive())
        await cast.clients_are_well()


async def test_a_session_id_in_use_is_refused_and_free_again_when_its_session_has_ended() -> None:
    witnesses = Witnesses()
    async with open_cast(witnesses.session) as cast, open_raw_client(cast.server.connect()) as rival:
        await _register(rival, _constellation_registers("rival"))
        _submit(cast.constellation, "s1")
        await _is_accepted(cast.constellation, "s1")
        _submit(cast.constellation, "s1", "another")
        assert _is_error(await cast.constellation.receive()) == "session_id 's1' is in use"
        _submit(rival, "s1")
        assert _is_error(await rival.receive()) == "session_id 's1' is owned by another client"
        witnesses.let_go.set()
        assert await _ending(cast.constellation, "s1") == ("completed", "echo:x", None)
        assert await _ending(cast.device, "s1") == ("completed", "echo:x", None)
        _submit(rival, "s1", "mine")
        await _is_accepted(rival, "s1")
        assert await _ending(rival, "s1") == ("completed", "mine", None)


async def test_first_replies_come_in_the_order_of_the_messages() -> None:
    async with open_cast(sleep_forever) as cast:
        constellation = cast.constellation
        for number in range(50):
            constellation.send_text("no JSON")
            constellation.send(type="heartbeat", status="ok", client_type="constellation")
            _submit(constellation, f"s{number}")
            _submit(constellation, f"s{number}", target="device_404")
            constellation.send(
                type="device_info_request",
                status="ok",
                client_type="constellation",
                target_id=DEVICE,
                request_id=f"q{number}",
            )
        for number in range(50):
            assert "not JSON" in _is_error(await constellation.receive())
            assert "session_id" not in await constellation.receive()
            assert (await constellation.receive())["session_id"] == f"s{number}"
            assert "'device_404'" in _is_error(await constellation.receive())
            assert (await constellation.receive())["response_id"] == f"q{number}"


# ---- registration


NO_REGISTRATION = "the first message must be a registration with a client_id"
FIRST_MESSAGES = {
    "a heartbeat": (text_frames("registration_errors")[4].text, NO_REGISTRATION),
    "a task": (text_frames("task_completed")[0].text, NO_REGISTRATION),
    "a registration without a name": ('{"type": "register", "status": "ok"}', NO_REGISTRATION),
    "a registration with an empty name": ('{"type": "register", "status": "ok", "client_id": ""}', NO_REGISTRATION),
    "no JSON": ("{not json", "invalid message to the server: not JSON"),
    "no message": ("[]", "invalid message to the server: expected an object"),
}


@pytest.mark.parametrize(("text", "words"), FIRST_MESSAGES.values(), ids=FIRST_MESSAGES)
async def test_a_first_message_that_is_no_registration_is_refused_and_closed_with_1008(text: str, words: str) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        client.send_text(text)
        [error], code = await client.receive_until_ended()
        assert _is_error(error).startswith(words)
        assert code == 1008
        assert server.devices == []


@pytest.mark.parametrize("text", ["{not json", _device_registers()], ids=["broken", "a registration"])
async def test_what_follows_a_refused_registration_is_not_answered(text: str) -> None:
    async with open_memory_server() as server:
        # Which of the server's tasks runs first is left to chance: whether it reads on, or closes.
        for _ in range(30):
            async with open_raw_client(server.connect()) as client:
                client.send_text('{"type": "register", "status": "ok"}')
                client.send_text(text)
                messages, code = await client.receive_until_ended()
                assert [message["type"] for message in messages] == ["error"]
                assert code == 1008
                assert server.devices == []


async def test_silence_instead_of_a_registration_is_closed_with_1008(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(register_timeout=7)
    async with open_memory_server(limits=limits) as server, open_raw_client(server.connect()) as client:
        await client.silence(6.9)
        assert await client.close_code() == 1008
        assert trio.current_time() == pytest.approx(7, abs=0.2)


async def test_a_client_that_is_registered_may_be_silent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cast(limits=ServerLimits(register_timeout=7)) as cast:
        await cast.constellation.silence(100)
        await cast.clients_are_well()


async def test_a_device_that_says_nothing_of_itself_has_no_information() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        await _register(device, '{"type": "register", "status": "ok", "client_id": "device_001"}')
        async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
            with pytest.raises(RequestRejected) as caught:
                await connection.device_info()
        assert caught.value.words == "Device device_001 not found or no system info available"


@pytest.mark.parametrize("system_info", ["text", ["a list"], 5, None])
async def test_system_information_that_is_no_object_is_none(system_info: object) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        metadata = {"system_info": system_info, "platform": 5}
        await _register(
            device, json.dumps({"type": "register", "status": "ok", "client_id": DEVICE, "metadata": metadata})
        )
        async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
            with pytest.raises(RequestRejected, match="no system info available"):
                await connection.device_info()


async def test_a_device_that_names_two_platforms_has_the_one_of_its_information() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        info: Members = {"device_id": DEVICE, "platform": "darwin"}
        metadata = {"platform": "linux", "system_info": info}
        await _register(
            device, json.dumps({"type": "register", "status": "ok", "client_id": DEVICE, "metadata": metadata})
        )
        [client] = server.clients()
        assert (client.platform, client.system_info) == ("linux", info)


async def test_information_goes_to_constellations_only_and_of_devices_only() -> None:
    async with open_cast() as cast, open_raw_client(cast.server.connect()) as free:
        cast.device.send(type="device_info_request", status="ok", target_id=DEVICE, request_id="q1")
        assert "Not authorized" in _is_error(await cast.device.receive())
        await _register(free, _constellation_registers("free", None))
        free.send(type="device_info_request", status="ok", client_type="constellation", request_id="q2")
        assert "Not authorized" in _is_error(await free.receive())
        free.send(
            type="device_info_request", status="ok", client_type="constellation", target_id="free", request_id="q3"
        )
        assert "not found" in str((await free.receive())["result"])
        free.send(
            type="device_info_request", status="ok", client_type="constellation", target_id=DEVICE, request_id="q4"
        )
        reply = await free.receive()
        assert (reply["response_id"], reply["status"]) == ("q4", "ok")
        assert "'hostname': 'edge-1'" in str(reply["result"])


async def test_a_constellation_cannot_be_for_a_constellation() -> None:
    async with open_cast() as cast, open_raw_client(cast.server.connect()) as client:
        client.send_text(_constellation_registers("other", CONSTELLATION))
        [error], code = await client.receive_until_ended()
        assert _is_error(error) == f"Target device {CONSTELLATION!r} is not connected"
        assert code == 1000


async def test_a_device_needs_no_target() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        await _register(device, json.dumps({**json.loads(_device_registers()), "target_id": "device_404"}))
        assert server.devices == [DEVICE]


async def test_a_connection_that_ends_without_a_registration_is_forgotten_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        await client.abort()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert trio.current_time() == 0


async def test_a_name_is_free_again_when_its_connection_has_ended() -> None:
    async with open_cast() as cast:
        await cast.constellation.close()
        await trio.testing.wait_all_tasks_blocked()
        assert cast.server.constellations == []
        async with open_raw_client(cast.server.connect()) as again:
            await _register(again, _CONSTELLATION_REGISTERS.text)
            assert cast.server.constellations == [CONSTELLATION]


# ---- who is let in


@pytest.mark.parametrize("given", [None, "", "wrong", "s3cret/+& ", "s3cret/+& ü?", "S3CRET/+& ü"])
async def test_a_token_that_is_missing_or_wrong_is_answered_with_403(given: str | None) -> None:
    async with open_memory_server(token="s3cret/+& ü") as server:
        with pytest.raises(HandshakeRejected) as caught:
            async with open_raw_client(server.connect(), token=given):
                raise AssertionError("was let in")
        assert caught.value.status_code == 403
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)


async def test_the_right_token_lets_in() -> None:
    async with (
        open_memory_server(token="s3cret/+& ü") as server,
        open_raw_client(server.connect(), token="s3cret/+& ü") as client,
    ):
        await _register(client, _device_registers())


async def test_a_server_without_a_token_takes_any() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect(), token="whatever") as client:
        await _register(client, _device_registers())


async def test_tokens_over_a_socket() -> None:
    async with open_server(token="s3cret") as server:
        for wrong in (None, "wrong"):
            with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
                async with open_connection(server.url, DEVICE, token=wrong):
                    raise AssertionError("was let in")
            assert caught.value.status_code == 403
        with trio.fail_after(60), pytest.raises(ConnectFailed, match="Target device 'device_001' is not connected"):
            async with open_connection(server.url, DEVICE, token="s3cret"):
                raise AssertionError("there is no device")


async def test_a_token_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_server(token="s3cret") as server:
        assert "s3cret" not in repr(server) + server.url + repr(server.statistics())
        with trio.fail_after(60):
            async with open_device_connection(
                server.url, DEVICE, token="s3cret", system_info=DeviceInfo(DEVICE, Platform.LINUX)
            ):
                pass
            with pytest.raises(HandshakeRejected):
                async with open_connection(server.url, DEVICE, token="s3cret-but-wrong"):
                    raise AssertionError("was let in")
    assert "device 'device_001'" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("path", ["/", "/ws/", "/WS", "/other", "/ws/../ws", "//ws"])
@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_another_path_is_answered_with_404(path: str, token: str | None) -> None:
    async with open_memory_server(token=token) as server:
        with pytest.raises(HandshakeRejected) as caught:
            async with open_raw_client(server.connect(), path=path, token=token):
                raise AssertionError("was let in")
        assert caught.value.status_code == 404


EVERYWHERE = "0.0.0.0"  # noqa: S104  # what is tested is that it takes a token


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.com", "localhost.example.com", ""])
async def test_a_server_that_others_can_reach_needs_a_token_and_says_so(host: str) -> None:
    with pytest.raises(ConfigError, match=r"needs a token: give one, or listen at 127\.0\.0\.1") as caught:
        async with open_server(host):
            raise AssertionError("listens")
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("127.1.2.3", "127.1.2.3"), ("localhost", None), ("::1", "[::1]")],
)
async def test_a_server_at_loopback_needs_no_token(host: str, shown: str | None) -> None:
    try:
        async with open_server(host) as server:
            assert await _device_gets_in(server, token=None)
            assert shown is None or server.url.startswith(f"ws://{shown}:")
    except OSError:
        if host != "::1":
            raise
        pytest.skip("there is no IPv6 on this machine")


async def test_a_server_with_a_token_may_listen_everywhere_and_its_url_works() -> None:
    async with open_server(EVERYWHERE, token="s3cret") as server:
        assert server.url.startswith("ws://127.0.0.1:")
        assert await _device_gets_in(server, token="s3cret")


async def _device_gets_in(server: Server, *, token: str | None, context: ssl.SSLContext | None = None) -> bool:
    system_info = DeviceInfo(DEVICE, Platform.LINUX)
    with trio.fail_after(60):
        async with open_device_connection(
            server.url, DEVICE, token=token, system_info=system_info, ssl_context=context
        ):
            return server.devices == [DEVICE]


# ---- where it listens


async def test_it_listens_at_its_url_for_the_length_of_its_block() -> None:
    async with open_server() as server:
        assert repr(server) == f"<Server at {server.url}>"
        port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
        with pytest.raises(OSError, match="in use"):
            async with open_server(port=port):
                raise AssertionError("the port is taken")
        assert await _device_gets_in(server, token=None)
    with trio.fail_after(60), pytest.raises(OSError, match=str(port)):
        await trio.open_tcp_stream("127.0.0.1", port)
    async with open_server(port=port) as again:
        assert again.url == server.url


async def test_it_speaks_tls() -> None:
    authority = trustme.CA()
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(of_server)  # pyright: ignore[reportUnknownMemberType]
    authority.configure_trust(of_client)  # pyright: ignore[reportUnknownMemberType]
    async with open_server(ssl_context=of_server) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        assert await _device_gets_in(server, token=None, context=of_client)


async def test_a_task_over_a_socket() -> None:
    async with open_server() as server:
        with trio.fail_after(60):
            async with (
                open_device_connection(server.url, DEVICE, system_info=DeviceInfo(DEVICE, Platform.LINUX)),
                open_connection(server.url, DEVICE) as connection,
            ):
                assert (await connection.run_task("hello")).unwrap() == {"echo": "hello"}
                assert (await connection.device_info()).device_id == DEVICE


# ---- limits


@pytest.mark.parametrize("name", [attribute.name for attribute in attrs.fields(ServerLimits)])
@pytest.mark.parametrize("bad", [0, -1, math.nan])
def test_a_limit_that_is_not_above_0_is_a_config_error(name: str, bad: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be above 0"):
        ServerLimits(**{name: bad})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_connection_above_the_limit_is_closed_at_once_and_there_is_room_again_when_one_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_cast(limits=ServerLimits(max_connections=2)) as cast:
        with pytest.raises(ConnectFailed, match="ended the connection during the handshake"):
            async with open_raw_client(cast.server.connect()):
                raise AssertionError("was let in")
        assert "2 are open" in caplog.text
        await cast.clients_are_well()
        await cast.constellation.close()
        await trio.testing.wait_all_tasks_blocked()
        async with open_raw_client(cast.server.connect()) as client:
            await _register(client, _CONSTELLATION_REGISTERS.text)


HALF_HANDSHAKES = {"nothing": b"", "half a request": b"GET /ws HTTP/1.1\r\nHost: server.test\r\n"}


@pytest.mark.parametrize("sent", HALF_HANDSHAKES.values(), ids=HALF_HANDSHAKES)
async def test_a_socket_without_a_handshake_is_closed_after_the_handshake_timeout(
    sent: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_server(limits=ServerLimits(handshake_timeout=7)) as server:
        stream = server.connect()
        await stream.send_all(sent)
        with trio.move_on_after(6.9):
            raise AssertionError(f"there came {await stream.receive_some()!r}")
        assert server.statistics().connections == 1
        with trio.fail_after(5):
            assert await stream.receive_some() == b""
        assert trio.current_time() == pytest.approx(7, abs=0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n\r\n", b"x" * (MAX_HEAD + 1)],
    ids=["TLS", "no WebSocket", "too long a head"],
)
async def test_what_is_no_handshake_ends_that_connection_only(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_cast() as cast:
        stream = cast.server.connect()
        await stream.send_all(sent)
        with trio.fail_after(60):
            while await stream.receive_some():
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert "was rejected: its request is not a WebSocket handshake" in caplog.text
        assert not [record for record in caplog.records if record.levelno > logging.INFO]
        await cast.clients_are_well()


async def test_a_message_above_the_limit_is_closed_with_1009_and_one_at_the_limit_is_answered() -> None:
    async with open_cast(limits=ServerLimits(max_message_size=5000)) as cast:
        heartbeat = json.dumps({"type": "heartbeat", "status": "ok", "client_type": "constellation", "task_name": ""})
        at_limit = heartbeat[:-2] + "x" * (5000 - len(heartbeat)) + heartbeat[-2:]
        cast.constellation.send_text(at_limit)
        assert (await cast.constellation.receive())["type"] == "heartbeat"
        cast.constellation.send_text(at_limit + " ")
        assert await cast.constellation.close_code() == 1009
        cast.device.send(type="heartbeat", status="ok")
        assert (await cast.device.receive())["type"] == "heartbeat"


async def test_a_client_that_has_gone_without_a_word_is_forgotten_and_one_that_only_answers_pings_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = ServerLimits(liveness_timeout=50, ping_interval=20)
    async with (
        open_memory_server(limits=limits) as server,
        open_raw_client(silent := FaultyStream(server.connect())) as gone,
        open_raw_client(server.connect()) as there,
    ):
        await _register(gone, _device_registers("gone"))
        await _register(there, _device_registers("there"))
        silent.go_silent()
        await there.silence(49)
        assert server.devices == ["gone", "there"]
        await there.silence(2)
        assert server.devices == ["there"]
        await there.silence(500)
        assert server.devices == ["there"]
        assert server.statistics().connections == 1


async def test_a_peer_that_floods_and_does_not_read_holds_bounded_memory_and_harms_nobody_else(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    held: list[int] = []
    send_nowait = Transport.send_nowait

    def watched(self: Transport, text: str, *, gather: bool = False) -> None:
        send_nowait(self, text, gather=gather)
        held.append(self.bytes_held)

    monkeypatch.setattr(Transport, "send_nowait", watched)
    client_end, server_end = trio.testing.memory_stream_pair()
    # What the server writes blocks: its peer does not read.
    not_read = FaultyStream(server_end)
    information = "x" * 100_000
    async with open_cast() as cast, trio.open_nursery() as nursery:
        nursery.start_soon(cast.server.serve_stream, not_read)
        async with open_raw_client(client_end) as flooding, open_raw_client(cast.server.connect()) as large:
            await _register(large, _device_registers("large", hostname=information))
            await _register(flooding, _constellation_registers("flooding", "large"))
            not_read.stall()
            held.clear()
            for _ in range(200):
                flooding.send(
                    type="device_info_request",
                    status="ok",
                    client_type="constellation",
                    target_id="large",
                    request_id="q",
                )
            # The flood's own frames were counted as well.
            held.clear()
            await trio.testing.wait_all_tasks_blocked()
            assert HIGH_WATER_MARK <= max(held) <= HIGH_WATER_MARK + len(information) + 1000
            await cast.clients_are_well()
            _submit(cast.constellation, "s1")
            await _is_accepted(cast.constellation, "s1")
            assert await _ending(cast.constellation, "s1") == ("completed", {"echo": "x"}, None)
            assert await _ending(cast.device, "s1") == ("completed", {"echo": "x"}, None)
            # It reads again, and is told all.
            not_read.resume()
            for _ in range(200):
                assert (await flooding.receive())["type"] == "device_info_response"


# ---- sessions


async def test_a_session_is_told_what_was_asked_by_whom_and_on_which_device() -> None:
    witnesses = Witnesses()
    async with open_cast(witnesses.session) as cast:
        _submit(cast.constellation, "s1", "do it")
        cast.constellation.send_text(text_frames("task_completed")[0].text)
        for _ in range(2):
            cast.constellation.send(type="task", status="ok", client_type="constellation", target_id=DEVICE)
        await _is_accepted(cast.constellation, "s1")
        await _is_accepted(cast.constellation, "demo@t1")
        first, second = [str((await cast.constellation.receive())["session_id"]) for _ in range(2)]
        assert first
        assert second not in ("", first)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(witnesses.started, key=lambda task: (task.request, task.session_id != first)) == [
            ServerTask(first, "", DEVICE, CONSTELLATION),
            ServerTask(second, "", DEVICE, CONSTELLATION),
            ServerTask("s1", "do it", DEVICE, CONSTELLATION),
            ServerTask("demo@t1", "echo:hello", DEVICE, CONSTELLATION, "galaxy/demo/t1"),
        ]


RESULTS: list[object] = [
    None,
    True,
    0,
    -1.5,
    "",
    "häß \N{GRINNING FACE}",
    [],
    [1, [None]],
    {},
    {"a": {"b": [1]}},
    2**70,
]


@pytest.mark.parametrize("result", RESULTS, ids=repr)
async def test_what_a_session_returns_is_its_tasks_result(result: object) -> None:
    async def session(task: ServerTask) -> object:
        return result

    async with open_cast(session) as cast:
        _submit(cast.constellation, "s1")
        await _is_accepted(cast.constellation, "s1")
        for client in (cast.constellation, cast.device):
            assert await _ending(client, "s1") == ("completed", result, None)


async def _failing(cast: Cast) -> tuple[object, object]:
    """Submit a task that fails: what both clients are told of it, result and error."""
    _submit(cast.constellation, "s1")
    await _is_accepted(cast.constellation, "s1")
    [of_constellation, of_device] = [await _ending(client, "s1") for client in (cast.constellation, cast.device)]
    assert of_constellation == of_device
    status, result, error = of_constellation
    assert status == "failed"
    assert cast.server.statistics().sessions == 0
    await cast.clients_are_well()
    return result, error


@pytest.mark.parametrize(
    ("error", "result", "words"),
    [
        (ValueError("no such window"), {}, "no such window"),
        (ValueError(), {}, "ValueError"),
        (TimeoutError(), {}, "TimeoutError"),
        (ExceptionGroup("several", [ValueError(1)]), {}, "several (1 sub-exception)"),
        (TaskFailed("half done", result={"done": [1, 2]}), {"done": [1, 2]}, "half done"),
        (TaskFailed("not done"), None, "not done"),
        (TaskFailed("", result="in its error state"), "in its error state", None),
    ],
    ids=repr,
)
async def test_what_a_session_raises_fails_its_task(error: Exception, result: object, words: str | None) -> None:
    async def session(task: ServerTask) -> object:
        raise error

    async with open_cast(session) as cast:
        assert await _failing(cast) == (result, words)


UNSENDABLE: dict[str, object] = {
    "an object": object(),
    "a set in a list": [{1}],
    "a key that is a tuple": {(1, 2): 3},
    "not a number": math.nan,
    "an infinity": [-math.inf],
    "a lone surrogate": "\ud800",
    "bytes": b"x",
}


@pytest.mark.parametrize("result", UNSENDABLE.values(), ids=UNSENDABLE)
@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
async def test_a_result_that_json_cannot_hold_fails_its_task(result: object, raised: bool) -> None:
    async def session(task: ServerTask) -> object:
        if raised:
            raise TaskFailed("", result=result)
        return result

    async with open_cast(session) as cast:
        told, words = await _failing(cast)
        assert told == {}
        assert "the session's result cannot be sent: cannot send a task_end message" in str(words)


@pytest.mark.parametrize("where", ["result", "error"])
async def test_a_result_above_the_message_limit_fails_its_task(where: str) -> None:
    async def session(task: ServerTask) -> object:
        if where == "error":
            raise ValueError("x" * 5000)
        return "x" * 5000

    async with open_cast(session, ServerLimits(max_message_size=5000)) as cast:
        told, words = await _failing(cast)
        assert told == {}
        assert "the session's result cannot be sent: a message of " in str(words)
        assert "above the limit of 5000" in str(words)


async def test_a_session_function_that_is_no_coroutine_function_fails_its_task() -> None:
    def session(task: ServerTask) -> Awaitable[object]:
        raise ValueError("not even a coroutine")

    async with open_cast(session) as cast:
        assert await _failing(cast) == ({}, "not even a coroutine")


async def test_a_keyboard_interrupt_in_a_session_comes_out_of_the_servers_block_bare() -> None:
    interrupt = KeyboardInterrupt()

    async def session(task: ServerTask) -> object:
        raise interrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        async with open_memory_server(session=session) as server:
            async with open_device_connection(
                server.url, DEVICE, system_info=DeviceInfo(DEVICE, Platform.LINUX), stream=server.connect()
            ):
                async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
                    await connection.run_task("stop")
    assert caught.value is interrupt


async def test_a_device_may_submit_a_task_for_itself_and_is_told_once() -> None:
    async with open_cast() as cast:
        cast.device.send(type="task", status="continue", session_id="s1", request="echo:mine")
        await _is_accepted(cast.device, "s1")
        assert await _ending(cast.device, "s1") == ("completed", {"echo": "mine"}, None)
        await cast.clients_are_well()


async def test_a_device_may_not_submit_a_task_for_another() -> None:
    async with open_cast() as cast, open_raw_client(cast.server.connect()) as other:
        await _register(other, _device_registers("device_002"))
        other.send(type="task", status="continue", session_id="s1", request="echo:yours", target_id=DEVICE)
        assert _is_error(await other.receive()) == "A device may run tasks only on itself"
        assert cast.server.statistics().sessions == 0


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_when_a_constellation_leaves_its_sessions_are_cancelled_the_device_is_told_and_the_name_is_free(
    how: str,
) -> None:
    witnesses = Witnesses()
    async with open_cast(witnesses.session) as cast, open_raw_client(cast.server.connect()) as other:
        await _register(other, _constellation_registers("other"))
        _submit(other, "of another")
        _submit(cast.constellation, "s1")
        await _is_accepted(cast.constellation, "s1")
        await trio.testing.wait_all_tasks_blocked()
        assert len(witnesses.started) == 2
        await (cast.constellation.close() if how == "close" else cast.constellation.abort())
        words = "Task was cancelled because its constellation disconnected"
        assert await _ending(cast.device, "s1") == ("failed", {}, words)
        assert witnesses.cancelled == ["s1"]
        assert cast.server.constellations == ["other"]
        async with open_raw_client(cast.server.connect()) as again:
            await _register(again, _CONSTELLATION_REGISTERS.text)
            _submit(again, "s1")
            await _is_accepted(again, "s1")
            witnesses.let_go.set()
            assert await _ending(again, "s1") == ("completed", "echo:x", None)


async def test_when_a_device_leaves_its_sessions_are_cancelled_and_no_others() -> None:
    witnesses = Witnesses()
    async with open_cast(witnesses.session) as cast, open_raw_client(cast.server.connect()) as other:
        await _register(other, _device_registers("device_002"))
        _submit(cast.constellation, "elsewhere", target="device_002")
        _submit(cast.constellation, "here")
        await _is_accepted(cast.constellation, "elsewhere")
        await _is_accepted(cast.constellation, "here")
        await trio.testing.wait_all_tasks_blocked()
        await cast.device.abort()
        words = "Task was cancelled because target device disconnected"
        assert await _ending(cast.constellation, "here") == ("failed", {}, words)
        assert witnesses.cancelled == ["here"]
        witnesses.let_go.set()
        assert await _ending(cast.constellation, "elsewhere") == ("completed", "echo:x", None)


async def test_when_the_device_leaves_and_then_the_constellation_the_session_is_cancelled_once() -> None:
    let_go = trio.Event()
    cancelled: list[str] = []

    async def session(task: ServerTask) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(task.session_id)
            with trio.CancelScope(shield=True):
                await let_go.wait()

    async with open_cast(session) as cast:
        _submit(cast.constellation, "s1")
        await _is_accepted(cast.constellation, "s1")
        for client in (cast.device, cast.constellation):
            await trio.testing.wait_all_tasks_blocked()
            await client.close()
        await trio.testing.wait_all_tasks_blocked()
        # Its end was told when the device left; what is left is the session's own cleaning up.
        statistics = cast.server.statistics()
        let_go.set()
        assert statistics == ServerStatistics(0, 0, 0, 0, ending_sessions=1)
        await trio.testing.wait_all_tasks_blocked()
        assert cast.server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert cancelled == ["s1"]


async def test_a_constellation_that_leaves_while_its_tasks_end_costs_the_device_no_end_and_brings_none_twice() -> None:
    async with open_cast() as cast:
        sessions = [f"s{number}" for number in range(100)]
        for session_id in sessions:
            _submit(cast.constellation, session_id)
        await cast.constellation.close()
        ended = [(await cast.device.receive())["session_id"] for _ in sessions]
        assert sorted(map(str, ended)) == sorted(sessions)
        assert cast.server.statistics() == ServerStatistics(1, 1, 0, 0)
        await cast.device.close()
        assert await cast.device.receive_until_ended() == ([], 1000)


async def test_200_tasks_run_at_once_and_each_is_told_its_own_end(autojump_clock: trio.testing.MockClock) -> None:
    gates = {f"s{number}": trio.Event() for number in range(200)}
    running: set[str] = set()

    async def session(task: ServerTask) -> object:
        running.add(task.session_id)
        await gates[task.session_id].wait()
        return {"of": task.session_id, "request": task.request}

    async with open_cast(session, ServerLimits(max_sessions=200)) as cast:
        for session_id in gates:
            _submit(cast.constellation, session_id, f"do {session_id}")
        for session_id in gates:
            await _is_accepted(cast.constellation, session_id)
        await trio.testing.wait_all_tasks_blocked()
        assert running == set(gates)
        assert cast.server.statistics() == ServerStatistics(2, 1, 1, 200)
        for session_id in reversed(gates):
            gates[session_id].set()
            for client in (cast.constellation, cast.device):
                result = {"of": session_id, "request": f"do {session_id}"}
                assert await _ending(client, session_id) == ("completed", result, None)
        assert cast.server.statistics().sessions == 0


# ---- the end of a server


Ending: TypeAlias = tuple[list[Members], int]


async def _stay(
    stream: trio.abc.Stream, registration: str, endings: list[Ending], task_status: trio.TaskStatus[RawClient]
) -> None:
    """A client that is there until the server ends the connection."""
    async with open_raw_client(stream) as client:
        await _register(client, registration)
        task_status.started(client)
        endings.append(await client.receive_until_ended())


async def test_when_its_block_ends_sessions_are_cancelled_clients_are_told_and_closed_with_1001() -> None:
    witnesses = Witnesses()
    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=witnesses.session) as server:
            await nursery.start(_stay, server.connect(), _device_registers(), endings)
            client: RawClient = await nursery.start(_stay, server.connect(), _constellation_registers(), endings)
            _submit(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics() == ServerStatistics(2, 1, 1, 1)
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert witnesses.cancelled == ["s1"]
    assert [code for _, code in endings] == [1001, 1001]
    words = "Task was cancelled because the server is shutting down"
    ends = [messages[-1] for messages, _ in endings]
    assert [(end["type"], end["status"], end["error"]) for end in ends] == [("task_end", "failed", words)] * 2
    assert sorted(len(messages) for messages, _ in endings) == [1, 2]


async def test_when_its_block_ends_clients_without_a_registration_are_closed_with_1001_as_well() -> None:
    endings: list[Ending] = []

    async def stay(stream: trio.abc.Stream, task_status: trio.TaskStatus[None]) -> None:
        async with open_raw_client(stream) as client:
            task_status.started()
            endings.append(await client.receive_until_ended())

    async with trio.open_nursery() as nursery:
        async with open_memory_server() as server:
            await nursery.start(stay, server.connect())
            await trio.testing.wait_all_tasks_blocked()
    assert endings == [([], 1001)]


async def test_its_end_is_bounded_when_a_session_or_a_client_does_not_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(3.5)

    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            stream = FaultyStream(server.connect())
            client: RawClient = await nursery.start(_stay, stream, _device_registers(), list[Ending]())
            client.send(type="task", status="continue", session_id="s1")
            await trio.testing.wait_all_tasks_blocked()
            stream.go_silent()
            start = trio.current_time()
        assert 3 < trio.current_time() - start < 5
        nursery.cancel_scope.cancel()


async def test_the_first_reason_for_which_a_session_was_cancelled_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)

    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            await nursery.start(_stay, server.connect(), _device_registers(), endings)
            client: RawClient = await nursery.start(_stay, server.connect(), _constellation_registers(), list[Ending]())
            _submit(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            await client.abort()
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics() == ServerStatistics(1, 1, 0, 0, ending_sessions=1)
    [([end], code)] = endings
    assert (end["error"], code) == ("Task was cancelled because its constellation disconnected", 1001)


async def test_a_task_that_comes_at_whatever_step_the_server_stops_costs_nobody_the_goodbye() -> None:
    for steps in range(30):
        endings: list[Ending] = []
        async with trio.open_nursery() as nursery:
            async with open_memory_server(session=sleep_forever) as server:
                await nursery.start(_stay, server.connect(), _device_registers(), endings)
                client: RawClient = await nursery.start(_stay, server.connect(), _constellation_registers(), endings)
                _submit(client, "s1")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
        assert [code for _, code in endings] == [1001, 1001]


async def test_its_end_over_a_socket_is_a_goodbye_as_well() -> None:
    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        async with open_server() as server:
            port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await nursery.start(_stay, stream, _device_registers(), endings)
    assert endings == [([], 1001)]


async def test_nobody_is_let_in_while_it_stops(autojump_clock: trio.testing.MockClock) -> None:
    turned_away: list[bytes | bytearray] = []

    async def session(task: ServerTask) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), trio.fail_after(1):
                turned_away.append(await server.connect().receive_some())

    async with trio.open_nursery() as nursery:
        async with open_memory_server(session=session) as server:
            client: RawClient = await nursery.start(_stay, server.connect(), _device_registers(), list[Ending]())
            client.send(type="task", status="continue", session_id="s1")
            await trio.testing.wait_all_tasks_blocked()
    assert turned_away == [b""]


async def test_cancelling_its_block_closes_all_at_once_and_cancels_sessions() -> None:
    witnesses = Witnesses()
    endings: list[Ending] = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_memory_server(session=witnesses.session) as server:
                client: RawClient = await nursery.start(_stay, server.connect(), _device_registers(), endings)
                client.send(type="task", status="continue", session_id="s1")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert witnesses.cancelled == ["s1"]
    [(messages, code)] = endings
    assert code == 1006
    assert [message["type"] for message in messages] == ["heartbeat"]


async def test_what_its_block_raises_comes_out_as_it_is_over_a_socket() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_server() as server:
            assert await _device_gets_in(server, token=None)
            raise error
    assert caught.value is error


# ---- one connection's trouble is no other's


async def test_a_bug_in_the_server_ends_the_connection_that_met_it_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    received = Peer.received

    def buggy(self: Peer, message: ClientMessage) -> None:
        if message.request == "meet the bug":
            raise ZeroDivisionError("a bug")
        received(self, message)

    monkeypatch.setattr(Peer, "received", buggy)
    witnesses = Witnesses()
    async with open_cast(witnesses.session) as cast, open_raw_client(cast.server.connect()) as unlucky:
        await _register(unlucky, _constellation_registers("unlucky"))
        _submit(unlucky, "s1")
        _submit(cast.constellation, "s2")
        await _is_accepted(unlucky, "s1")
        await _is_accepted(cast.constellation, "s2")
        await trio.testing.wait_all_tasks_blocked()
        _submit(unlucky, "s3", "meet the bug")
        assert await unlucky.receive_until_ended() == ([], 1006)
        await trio.testing.wait_all_tasks_blocked()
        assert (await _ending(cast.device, "s1"))[0] == "failed"
        assert witnesses.cancelled == ["s1"]
        assert cast.server.statistics() == ServerStatistics(2, 1, 1, 1)
        await cast.clients_are_well()
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "a connection ended by a bug of the server"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_a_reset_connection_is_no_others_trouble_and_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    faulty = FaultyStream(server_end)
    async with open_cast() as cast, trio.open_nursery() as nursery:
        nursery.start_soon(cast.server.serve_stream, faulty)
        async with open_raw_client(client_end) as client:
            await _register(client, _constellation_registers("short-lived"))
            faulty.reset()
            await trio.testing.wait_all_tasks_blocked()
            assert cast.server.constellations == [CONSTELLATION]
            await cast.clients_are_well()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


# ---- what it keeps


def _alive() -> int:
    """How many objects there are of those that a connection or a session has."""
    gc.collect()
    kept = [item for item in gc.get_objects() if isinstance(item, Peer | Transport | ServerTask | trio.CancelScope)]
    # Scopes with a deadline are kept by trio for a while.
    return sum(not isinstance(item, trio.CancelScope) or item.deadline == math.inf for item in kept)


async def test_it_keeps_nothing_of_connections_and_sessions_that_have_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cast() as cast:

        async def come_and_go(number: int) -> None:
            for name in (f"{number}", f"{number} again"):
                async with open_raw_client(cast.server.connect()) as client:
                    await _register(client, _constellation_registers(name))
                    _submit(client, name)
                    await _is_accepted(client, name)
                    assert (await _ending(client, name))[0] == "completed"
                    assert (await _ending(cast.device, name))[0] == "completed"
                    await client.close()
            await trio.testing.wait_all_tasks_blocked()

        await come_and_go(0)
        before = _alive()
        for number in range(1, 6):
            await come_and_go(number)
        assert _alive() == before


# ---- what it tells of itself


async def test_it_counts_what_it_holds_now_and_names_who_is_there_in_order() -> None:
    async with open_cast(sleep_forever) as cast, open_raw_client(cast.server.connect()) as other:
        assert cast.server.statistics() == ServerStatistics(connections=3, devices=1, constellations=1, sessions=0)
        await _register(other, _device_registers("device_000"))
        _submit(cast.constellation, "s1")
        await _is_accepted(cast.constellation, "s1")
        assert cast.server.statistics() == ServerStatistics(connections=3, devices=2, constellations=1, sessions=1)
        assert (cast.server.devices, cast.server.constellations) == ([DEVICE, "device_000"], [CONSTELLATION])
        assert repr(cast.server) == "<Server at ws://server.test/ws>"
