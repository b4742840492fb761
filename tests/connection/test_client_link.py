"""How opening a connection fails: at once where nothing good can come any more, with one sentence on why, and with nothing left open."""

from __future__ import annotations

import math
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, cast
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol
from wsproto.utilities import generate_accept_token

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    DeviceInfo,
    GalaxyError,
    HandshakeRejected,
    InvalidMessage,
    RegistrationRejected,
    TaskStatus,
    open_connection,
)
from galaxy_trio._connection.client_link import read_token
from galaxy_trio._transport.inbound_limits import MAX_HEAD
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import ServerMessageType
from galaxy_trio.testing import PEER_URL, FaultyStream, ScriptedPeer, open_bare_peer, open_memory_server
from tests.connection.support.sockets import open_sockets
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Handler: TypeAlias = Callable[[trio.SocketStream], Awaitable[None]]
Answer: TypeAlias = Callable[[bytes], bytes]


async def _fail(
    url: str,
    *,
    stream: trio.abc.Stream | None = None,
    connect_timeout: float = 600.0,
    register_timeout: float = 600.0,
    within: float = 60.0,
) -> ConnectFailed:
    """Open a connection that must fail; unless told otherwise, long before its timeouts."""
    with trio.fail_after(within), pytest.raises(ConnectFailed) as caught:
        async with open_connection(
            url, "device_001", stream=stream, connect_timeout=connect_timeout, register_timeout=register_timeout
        ):
            raise AssertionError("not reached")
    return caught.value


# ---- sockets


@attrs.define(eq=False)
class Listener:
    """A raw listener on loopback.

    Attributes:
        url: Where it listens.
        accepted: How many clients came.
        gone: How many of them have ended their connection.
    """

    url: str
    accepted: int = 0
    gone: int = 0
    _one_gone: trio.Event = attrs.field(factory=trio.Event)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    async def serve(self, handler: Handler, stream: trio.SocketStream) -> None:
        self.accepted += 1
        async with stream:
            # A handler that has closed its end cannot see the client's.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await handler(stream)
                while await stream.receive_some():
                    pass
        self.gone += 1
        self._one_gone.set()

    async def wait_all_gone(self) -> None:
        with trio.fail_after(60):
            while self.gone < self.accepted:
                self._one_gone = trio.Event()
                await self._one_gone.wait()


@asynccontextmanager
async def _listen(handler: Handler) -> AsyncGenerator[Listener]:
    """Give each client to the handler, and then wait for its end. When the block ends, no client's socket may be open."""
    before = open_sockets()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listening = Listener(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, partial(listening.serve, handler), [listener])
        yield listening
        await listening.wait_all_gone()
        nursery.cancel_scope.cancel()
    assert open_sockets() <= before


async def _read_head(stream: trio.abc.ReceiveStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        assert data, "the client left before it had asked for anything"
        head += data
    return head


Address: TypeAlias = (
    tuple[Literal[socket.AddressFamily.AF_INET], socket.SocketKind, int, str, tuple[str, int]]
    | tuple[
        Literal[socket.AddressFamily.AF_INET6],
        socket.SocketKind,
        int,
        str,
        tuple[str, int, int, int] | tuple[int, bytes],
    ]
)


class Resolver(trio.abc.HostnameResolver):
    """A name server of the test's own: it gives these addresses for every name, or knows none."""

    def __init__(self, *addresses: str, answers: bool = True) -> None:
        self._addresses = addresses
        self._answers = answers

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Address]:
        del host, family, type, proto, flags
        await trio.lowlevel.checkpoint()
        if not self._answers:
            await trio.sleep_forever()
        if not self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        assert isinstance(port, int)
        found: list[Address] = []
        for address in self._addresses:
            if ":" in address:
                found.append((socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)))
            else:
                found.append((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)))
        return found

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        raise NotImplementedError


@pytest.fixture
def refusing_port() -> Generator[int]:
    """A port of loopback that refuses connections, and that no other process can take."""
    with socket.socket() as bound:
        bound.bind(("0.0.0.0", 0))  # noqa: S104  # nothing listens
        yield bound.getsockname()[1]


async def test_where_nothing_listens_the_error_names_the_url_and_its_cause(refusing_port: int) -> None:
    url = f"ws://127.0.0.1:{refusing_port}/ws"
    before = open_sockets()
    error = await _fail(url)
    assert open_sockets() <= before
    assert type(error) is ConnectFailed
    assert str(error) == f"cannot connect to {url}: connection refused; is the server running, and at this port?"
    assert isinstance(error.__cause__, OSError)


async def test_an_address_that_cannot_be_connected_to_is_told_in_the_systems_words_alone() -> None:
    # To everybody on the network, which is no one.
    error = await _fail("ws://255.255.255.255:9/ws")
    assert type(error) is ConnectFailed
    assert str(error).startswith("cannot connect to ws://255.255.255.255:9/ws: ")
    assert not str(error).endswith("?")


async def test_a_name_that_does_not_resolve_is_told_in_the_resolvers_words() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver())
    before = open_sockets()
    error = await _fail("ws://nowhere.test:8765/ws")
    assert open_sockets() <= before
    assert type(error) is ConnectFailed
    assert (
        str(error)
        == "cannot connect to ws://nowhere.test:8765/ws: name or service not known; is the host's name right?"
    )
    assert isinstance(error.__cause__, socket.gaierror)


async def test_a_name_server_that_does_not_answer_is_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(answers=False))
    error = await _fail("ws://slow.test/ws", connect_timeout=7, within=8)
    assert trio.current_time() == pytest.approx(7)
    assert isinstance(error, ConnectTimeout)
    assert isinstance(error, trio.TooSlowError)
    assert str(error) == "no connection to ws://slow.test:80/ws within 7 s"


async def test_when_the_first_address_refuses_the_second_is_tried() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("::1", "127.0.0.1"))
    async with open_memory_server() as server, _listen(server.serve_stream) as listener:
        with trio.fail_after(60):
            async with open_device_connection(
                f"ws://two.test:{listener.port}/ws", "device_001", system_info=DeviceInfo("device_001", "linux")
            ):
                assert server.devices == ["device_001"]


async def test_when_all_addresses_refuse_the_reason_of_the_first_is_told(refusing_port: int) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "127.0.0.2", "127.0.0.3"))
    before = open_sockets()
    error = await _fail(f"ws://three.test:{refusing_port}/ws")
    assert open_sockets() <= before
    assert ": connection refused; is the server running" in str(error)
    assert isinstance(error.__cause__, OSError)
    group = cast("ExceptionGroup[Exception] | None", error.__cause__.__cause__)
    assert group is not None
    assert len(group.exceptions) == 3


async def test_a_listener_that_says_nothing_is_a_timeout(mock_clock: trio.testing.MockClock) -> None:
    async def accept(stream: trio.SocketStream) -> None:
        await _read_head(stream)
        mock_clock.jump(7)

    async with _listen(accept) as listener:
        error = await _fail(listener.url, connect_timeout=7, within=8)
        assert isinstance(error, ConnectTimeout)
        assert isinstance(error, trio.TooSlowError)
        assert "'device_001'" in str(error)
        await listener.wait_all_gone()
        assert listener.gone == 1


async def _close(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def _reset(stream: trio.SocketStream) -> None:
    await _read_head(stream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def _close_after_request(stream: trio.SocketStream) -> None:
    await _read_head(stream)
    await stream.aclose()


async def _close_in_head(stream: trio.SocketStream) -> None:
    await _read_head(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")
    await stream.aclose()


async def _end_in_head(stream: trio.SocketStream) -> None:
    """The end of the stream, and the socket stays open until the client closes its own."""
    await _read_head(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")
    await stream.send_eof()


@pytest.mark.parametrize("handler", [_close, _reset, _close_after_request, _close_in_head, _end_in_head])
async def test_a_listener_that_ends_the_connection_fails_it_at_once(handler: Handler) -> None:
    async with _listen(handler) as listener:
        error = await _fail(listener.url)
        assert type(error) is ConnectFailed
        assert str(error) == f"no WebSocket at {listener.url}: it ended the connection during the handshake"


async def test_a_reset_during_the_handshake_is_the_cause() -> None:
    async with _listen(_reset) as listener:
        error = await _fail(listener.url)
        assert isinstance(error.__cause__, trio.BrokenResourceError)


async def test_an_unfinished_403_is_a_rejection_at_once() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await _read_head(stream)
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n0123456789")

    async with _listen(answer) as listener:
        error = await _fail(listener.url)
        assert isinstance(error, HandshakeRejected)
        assert error.status_code == 403
        # The listener's end is still open: it has seen ours go.
        await listener.wait_all_gone()
        assert listener.gone == 1


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\n", b"X-Padding: and so on\r\n" * 100),
        (b"HTTP/1.1 101 Switching Protocols\r\n", b"x" * 1000),
        (b"", b"x" * 1000),
    ],
    ids=["headers", "one header", "no line"],
)
async def test_an_endless_answer_is_ended_before_it_takes_memory(start: bytes, piece: bytes) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await _read_head(stream)
        await stream.send_all(start)
        while True:
            await stream.send_all(piece)

    async with _listen(answer) as listener:
        error = await _fail(listener.url)
        assert type(error) is ConnectFailed
        assert str(error).startswith(f"no WebSocket at {listener.url}: ")


# ---- answers, in memory


async def _fail_on(answer: Answer, *, then_close: bool = False) -> ConnectFailed:
    """Open a connection to a server that answers the handshake with this, stays unless told to close, and must see us leave at once."""
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)

    async def serve() -> None:
        await server_end.send_all(answer(await _read_head(server_end)))
        if then_close:
            await server_end.send_eof()
        assert await server_end.receive_some() == b""

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        error = await _fail(PEER_URL, stream=stream)
        assert stream.closed
    assert trio.current_time() == start
    return error


def _saying(status: str, *, body: bytes = b"no") -> Answer:
    return lambda _: b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("200 OK", ""),
        ("301 Moved Permanently", ""),
        ("401 Unauthorized", ": is the token right?"),
        ("403 Forbidden", ": is the token right?"),
        ("404 Not Found", ": is the path of the URL right?"),
        ("426 Upgrade Required", ": is it a WebSocket server?"),
        ("500 Internal Server Error", ""),
        ("503", ""),
        ("103 Early Hints", ""),
    ],
)
@pytest.mark.parametrize("then_close", [False, True], ids=["stays", "closes"])
async def test_another_status_than_101_is_a_rejection_with_that_status(
    status: str, hint: str, then_close: bool, autojump_clock: trio.testing.MockClock
) -> None:
    error = await _fail_on(_saying(status), then_close=then_close)
    assert isinstance(error, HandshakeRejected)
    assert error.status_code == int(status[:3])
    shown = "ws://peer.test:80/ws"
    assert str(error) == f"{shown} answered the WebSocket handshake with HTTP status {status[:3]}{hint}"


async def test_a_rejection_is_known_by_its_first_line(autojump_clock: trio.testing.MockClock) -> None:
    error = await _fail_on(lambda _: b"HTTP/1.0 502 Bad Gateway\r\nServer: ")
    assert isinstance(error, HandshakeRejected)
    assert error.status_code == 502


@pytest.mark.parametrize(
    "greeting",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.test ESMTP\r\n",
        b"-ERR unknown command\r\n",
        b"J\x00\x00\x00\n8.0.36\x00\xff\xfe\x80",
        b"\x15\x03\x01\x00\x02\x02\x46",
        bytes(range(256)),
    ],
    ids=["ssh", "smtp", "redis", "mysql", "tls alert", "garbage"],
)
async def test_what_does_not_speak_http_fails_at_once(greeting: bytes, autojump_clock: trio.testing.MockClock) -> None:
    error = await _fail_on(lambda _: greeting)
    assert type(error) is ConnectFailed
    assert str(error).startswith("no WebSocket at ws://peer.test:80/ws: ")


def _accepting(
    *headers: bytes, token: bytes | None = None, upgrade: bytes = b"websocket", connection: bytes = b"Upgrade"
) -> Answer:
    """A 101, in good order but for what is given."""

    def answer(request: bytes) -> bytes:
        key = next(
            line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: " + upgrade,
            b"Connection: " + connection,
            b"Sec-WebSocket-Accept: " + (token or generate_accept_token(key)),
            *headers,
        ]
        return b"\r\n".join([*lines, b"", b""])

    return answer


_NO_WEBSOCKET: list[Answer] = [
    _accepting(token=b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    _accepting(b"Sec-WebSocket-Extensions: permessage-deflate"),
    _accepting(b"Sec-WebSocket-Protocol: aip"),
    _accepting(upgrade=b"h2c"),
    _accepting(connection=b"keep-alive"),
    lambda _: b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    _accepting(b"no header at all"),
]


@pytest.mark.parametrize(
    "answer",
    _NO_WEBSOCKET,
    ids=["accept", "extension", "subprotocol", "upgrade", "connection", "nothing", "no header"],
)
async def test_a_101_that_opens_no_websocket_fails_at_once(
    answer: Answer, autojump_clock: trio.testing.MockClock
) -> None:
    error = await _fail_on(answer)
    assert type(error) is ConnectFailed
    assert str(error).startswith("no WebSocket at ws://peer.test:80/ws: its answer breaks the WebSocket protocol")


async def test_a_101_in_good_order_opens_a_connection_even_with_the_confirmation_in_the_same_piece() -> None:
    # It shows as well that the answers above fail for their one fault.
    client_end, server_end = trio.testing.memory_stream_pair()
    confirmation = FrameProtocol(client=False, extensions=[]).send_data('{"type": "heartbeat", "status": "ok"}')

    async def serve() -> None:
        await server_end.send_all(_accepting()(await _read_head(server_end)) + confirmation)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(60):
            async with open_connection(PEER_URL, "device_001", stream=client_end) as connection:
                assert not connection.closed
                # Nobody answers a close.
                await server_end.aclose()


async def test_a_head_that_is_too_large_in_one_piece_is_refused_unread(
    autojump_clock: trio.testing.MockClock,
) -> None:
    error = await _fail_on(lambda _: b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * MAX_HEAD)
    assert type(error) is ConnectFailed
    assert str(error).endswith(f"it sent a handshake of more than {MAX_HEAD} bytes")


async def test_silence_is_a_timeout_and_the_stream_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    error = await _fail(PEER_URL, stream=stream, connect_timeout=7, within=8)
    assert trio.current_time() == pytest.approx(7)
    assert isinstance(error, ConnectTimeout)
    assert isinstance(error, trio.TooSlowError)
    assert stream.closed
    await _read_head(server_end)
    assert await server_end.receive_some() == b""


async def test_an_answer_that_dribbles_in_does_not_put_the_timeout_off(autojump_clock: trio.testing.MockClock) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()

    async def dribble() -> None:
        with suppress(trio.BrokenResourceError):
            for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 10:
                await server_end.send_all(bytes([byte]))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        error = await _fail(PEER_URL, stream=client_end, connect_timeout=7, within=8)
        assert trio.current_time() == pytest.approx(7)
        assert isinstance(error, ConnectTimeout)


# ---- registration


Play: TypeAlias = Callable[[ScriptedPeer], Awaitable[None]]


async def _fail_to_register(
    play: Play, *, register_timeout: float = 600.0, within: float = 5.0
) -> tuple[ConnectFailed, int]:
    """Register with a peer that does this when it is asked: the error, and the code that the peer saw the WebSocket end with."""
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def answer() -> None:
            await peer.receive()
            await play(peer)

        nursery.start_soon(answer)
        error = await _fail(PEER_URL, stream=peer.stream, register_timeout=register_timeout, within=within)
        assert peer.stream.closed
        code = (await peer.wait_ended()).code
    return error, code


async def test_a_refused_registration_is_told_in_the_servers_words_and_ends_without_a_goodbye(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def refuse(peer: ScriptedPeer) -> None:
        peer.refuse("no room")

    error, code = await _fail_to_register(refuse)
    assert isinstance(error, RegistrationRejected)
    assert error.words == "no room"
    assert str(error) == "the server refused the registration for device 'device_001': no room"
    assert code == 1006


@pytest.mark.parametrize("status", [TaskStatus.ERROR, TaskStatus.FAILED, TaskStatus.CONTINUE])
@pytest.mark.parametrize("words", ["no room", None])
async def test_a_confirmation_with_another_status_than_ok_is_a_refusal(
    status: TaskStatus, words: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    async def confirm(peer: ScriptedPeer) -> None:
        peer.send(ServerMessageType.HEARTBEAT, status=status, error=words)

    error, _ = await _fail_to_register(confirm)
    assert isinstance(error, RegistrationRejected)
    assert error.words == (words or f"status {status}")


async def test_a_registration_that_is_not_answered_is_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async def say_nothing(peer: ScriptedPeer) -> None:
        """Confirm nothing."""

    error, code = await _fail_to_register(say_nothing, register_timeout=7, within=8)
    assert trio.current_time() == pytest.approx(7)
    assert isinstance(error, ConnectTimeout)
    assert isinstance(error, trio.TooSlowError)
    assert str(error) == "the server for device 'device_001' did not confirm the registration within 7 s"
    assert code == 1006


async def test_a_message_that_answers_nothing_does_not_confirm_a_registration(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def chatter(peer: ScriptedPeer) -> None:
        peer.send(ServerMessageType.TASK_END, session_id="somebody's")
        peer.send(ServerMessageType.HEARTBEAT, session_id="somebody's")
        peer.send(ServerMessageType.DEVICE_INFO_RESPONSE)

    error, _ = await _fail_to_register(chatter, register_timeout=7, within=8)
    assert isinstance(error, ConnectTimeout)


@pytest.mark.parametrize("text", ["{", '{"type": "heartbeat", "status": "perhaps"}', "[]"])
async def test_a_broken_confirmation_fails_the_registration_at_once(
    text: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def confirm(peer: ScriptedPeer) -> None:
        peer.send_text(text)

    error, _ = await _fail_to_register(confirm)
    assert type(error) is ConnectFailed
    assert isinstance(error.__cause__, InvalidMessage)


async def _reset_peer(peer: ScriptedPeer) -> None:
    peer.reset()


async def _end_peer(peer: ScriptedPeer) -> None:
    await peer.abort()


async def _break_peer(peer: ScriptedPeer) -> None:
    await peer.send_raw(b"\xff\xff\xff\xff")


_ENDINGS: list[tuple[Play, int]] = [
    (lambda peer: peer.close(1000, "because"), 1000),
    (lambda peer: peer.close(1011, "because"), 1011),
    (_reset_peer, 1006),
    (_end_peer, 1006),
    (_break_peer, 1002),
]


@pytest.mark.parametrize(
    ("play", "code"),
    _ENDINGS,
    ids=["1000", "1011", "reset", "end of stream", "no frame"],
)
async def test_a_connection_that_ends_before_the_registration_is_confirmed_has_failed_at_once(
    play: Play, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    error, _ = await _fail_to_register(play)
    assert type(error) is ConnectFailed
    assert isinstance(error.__cause__, ConnectionLost)
    assert error.__cause__.code == code
    assert str(error).startswith("could not register with the server for device 'device_001': ")
    assert error.__cause__.reason in str(error)


# ---- what cannot be right


class NoSockets(trio.abc.SocketFactory):
    """Nobody may open a socket."""

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> trio.socket.SocketType:
        del family, type, proto
        raise AssertionError("a socket was opened")


Opening: TypeAlias = Callable[[trio.abc.Stream | None], AbstractAsyncContextManager[object]]
_INFO = DeviceInfo("device_001", "linux")


def _connect_to(url: str) -> Opening:
    return lambda stream: open_connection(url, "device_001", stream=stream)


def _connect_with(header: tuple[str, str]) -> Opening:
    return lambda stream: open_connection("ws://127.0.0.1:9/", "device_001", stream=stream, headers=[header])


_GOOD = "ws://127.0.0.1:9/ws"


_IMPOSSIBLE: list[tuple[Opening, str]] = [
    (_connect_to("http://127.0.0.1:9/ws"), "begins with ws:// or wss://"),
    (_connect_to("127.0.0.1:9"), "begins with ws:// or wss://"),
    (_connect_to(""), "begins with ws:// or wss://"),
    (_connect_to("ws:///ws"), "names no host"),
    (_connect_to("ws://127.0.0.1:99999/ws"), "must be a number from 1 to 65535"),
    (_connect_to("ws://127.0.0.1:0/ws"), "port"),
    (_connect_to("ws://user:password@127.0.0.1:9/ws"), "no user and password"),
    (_connect_to("ws://127.0.0.1:9/ws#there"), "no fragment"),
    (_connect_to("ws://[::1/ws"), "cannot be read"),
    (_connect_to("ws://..:9/ws"), "is not a valid host name"),
    (lambda s: open_connection(_GOOD, "d", stream=s, connect_timeout=-1), "connect_timeout must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, connect_timeout=0), "connect_timeout must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, register_timeout=-1), "register_timeout must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, register_timeout=math.nan), "register_timeout must be"),
    (lambda s: open_connection(_GOOD, "d", stream=s, heartbeat_interval=0), "heartbeat_interval must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, liveness_timeout=-1), "liveness_timeout must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, ping_interval=-1), "ping_interval must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, max_message_size=0), "max_message_size must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, max_pending=0), "max_pending must be above 0"),
    (lambda s: open_connection(_GOOD, "d", stream=s, client_name="x" * 65), "client_name has 1 to 64 characters"),
    (lambda s: open_connection(_GOOD, "d", stream=s, client_name=""), "client_name has 1 to 64 characters"),
    (_connect_with(("X-Note", "one\r\nX-Other: two")), "the value of the header 'X-Note'"),
    (_connect_with(("X-Note", "one\nX-Other: two")), "the value of the header 'X-Note'"),
    (_connect_with(("X-Note", "nul\0")), "the value of the header 'X-Note'"),
    (_connect_with(("X-Note\r\nX-Other", "one")), "has a name that HTTP does not allow"),
    (_connect_with(("Host", "elsewhere")), "belongs to the handshake"),
    (lambda s: open_device_connection("http://h/", "d", system_info=_INFO, stream=s), "begins with ws://"),
    (
        lambda s: open_device_connection(_GOOD, "d", system_info=_INFO, stream=s, connect_timeout=-1),
        "connect_timeout must be above 0",
    ),
]


@pytest.mark.parametrize(("opening", "why"), _IMPOSSIBLE)
async def test_what_cannot_be_right_is_refused_before_anything_is_opened(opening: Opening, why: str) -> None:
    trio.socket.set_custom_socket_factory(NoSockets())
    with pytest.raises(ConfigError, match=why) as caught:
        async with opening(None):
            raise AssertionError("not reached")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, GalaxyError)
    # A stream that was given is closed, and nothing was sent on it.
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    with pytest.raises(ConfigError, match=why):
        async with opening(stream):
            raise AssertionError("not reached")
    assert stream.closed
    assert await server_end.receive_some() == b""


# ---- cancellation


class _CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when any task is about to make the n-th step from now."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self._steps_left = step
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self._steps_left -= 1
        if self._steps_left == 0:
            self._scope.cancel()


async def _open_and_cancel_at_step(step: int, opening: AbstractAsyncContextManager[object]) -> bool:
    """Whether it was still open at last, cancelled no sooner than in its block."""
    opened = False
    with trio.fail_after(60), trio.CancelScope() as scope:
        instrument = _CancelAtStep(step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with opening:
                opened = True
        finally:
            trio.lowlevel.remove_instrument(instrument)
    assert opened or scope.cancelled_caught
    return opened


async def test_cancelling_at_every_step_of_the_opening_leaves_neither_a_stream_nor_a_task() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    for step in range(1, 1000):
        async with open_bare_peer() as peer, trio.open_nursery() as nursery:

            async def confirm(peer: ScriptedPeer = peer) -> None:
                with suppress(TransportEnded):
                    await peer.receive()
                    peer.confirm()

            nursery.start_soon(confirm)
            opening = open_connection(PEER_URL, "device_001", stream=peer.stream)
            opened = await _open_and_cancel_at_step(step, opening)
            assert peer.stream.closed
            nursery.cancel_scope.cancel()
        assert trio.lowlevel.current_statistics().tasks_living == before
        if opened:
            break
    else:
        raise AssertionError("it never came to an end")
    assert step > 20


async def test_cancelling_at_every_step_of_the_opening_leaves_no_socket() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("::1", "127.0.0.1"))
    async with open_memory_server() as server, _listen(server.serve_stream) as listener:
        url = f"ws://two.test:{listener.port}/ws"
        for step in range(1, 1000):
            # Within `_listen`, which counts the sockets that are left when all of these are over.
            if await _open_and_cancel_at_step(step, open_device_connection(url, "device_001", system_info=_INFO)):
                break
            await listener.wait_all_gone()
        else:
            raise AssertionError("it never came to an end")
        assert step > 20


# ---- the client's handshake


async def _request(
    url: str, *, token: str | None = None, headers: list[tuple[str, str]] | None = None
) -> tuple[str, list[tuple[str, str]]]:
    """What a client asks for: the request's target, and its headers."""
    client_end, server_end = trio.testing.memory_stream_pair()
    head = b""
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            async with open_connection(url, "device_001", stream=client_end, token=token, headers=headers or ()):
                raise AssertionError("not reached")

        nursery.start_soon(connect)
        with trio.fail_after(60):
            head = await _read_head(server_end)
        nursery.cancel_scope.cancel()
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    assert (method, version) == ("GET", "HTTP/1.1")
    return target, [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://peer.test", "/ws"),
        ("ws://peer.test/", "/"),
        ("ws://peer.test/ws", "/ws"),
        ("ws://peer.test?a=1&b=2", "/ws?a=1&b=2"),
        ("ws://peer.test/a/b%2Fc?x=%20y", "/a/b%2Fc?x=%20y"),
        ("ws://peer.test/ä b?x=ö", "/%C3%A4%20b?x=%C3%B6"),
        ("WS://PEER.TEST/Ws", "/Ws"),
    ],
)
async def test_path_and_query_are_asked_for_as_given_and_a_url_without_a_path_asks_for_ws(
    url: str, target: str
) -> None:
    assert (await _request(url))[0] == target


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://peer.test/ws", "peer.test"),
        ("ws://peer.test:80/ws", "peer.test"),
        ("ws://peer.test:443/ws", "peer.test:443"),
        ("ws://peer.test:8765/ws", "peer.test:8765"),
        ("ws://127.0.0.1:8765/ws", "127.0.0.1:8765"),
        ("ws://[::1]/ws", "[::1]"),
        ("ws://[::1]:8765/ws", "[::1]:8765"),
        ("ws://bücher.test:8765/ws", "xn--bcher-kva.test:8765"),
    ],
)
async def test_the_host_header_has_the_port_only_where_it_is_not_the_schemes_own(url: str, host: str) -> None:
    headers = (await _request(url))[1]
    assert [value for name, value in headers if name == "host"] == [host]


async def test_given_headers_are_sent_beside_the_handshakes_own() -> None:
    given = [("Authorization", "Bearer abc"), ("X-Note", "  one  "), ("X-Note", "two"), ("X-Latin", "é")]
    headers = (await _request(PEER_URL, headers=given))[1]
    assert headers[-4:] == [("authorization", "Bearer abc"), ("x-note", "one"), ("x-note", "two"), ("x-latin", "é")]
    own = dict(headers[:-4])
    assert own.keys() == {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"}
    assert (own["upgrade"], own["connection"], own["sec-websocket-version"]) == ("websocket", "Upgrade", "13")


@pytest.mark.parametrize("token", ["abc", "a b&c=d/e?f#g%h+i", "é☃", "=", "&token=other", "%41"])
@pytest.mark.parametrize(
    ("url", "before"),
    [
        (PEER_URL, "/ws?token="),
        ("ws://peer.test", "/ws?token="),
        ("ws://peer.test/ws?", "/ws?token="),
        ("ws://peer.test/x?y=1&z=", "/x?y=1&z=&token="),
    ],
)
async def test_a_token_is_appended_quoted_so_that_the_server_reads_it_back(token: str, url: str, before: str) -> None:
    target = (await _request(url, token=token))[0]
    assert target.startswith(before)
    assert parse_qs(urlsplit(target).query)["token"] == [token]
    assert target.isascii()


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x80\x81", b"HELO", b"+OK"])
async def test_garbage_without_a_line_break_fails_at_once(
    garbage: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    assert "does not speak HTTP" in str(await _fail_on(lambda _: garbage))


async def test_a_101_that_is_wrong_is_told_for_its_own_reason(autojump_clock: trio.testing.MockClock) -> None:
    answer = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-Websocket-Accept: abc\r\n\r\n"
    assert "breaks the WebSocket protocol: bad accept token" in str(await _fail_on(lambda _: answer))


async def test_a_host_name_of_63_characters_can_be_connected_to() -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def confirm() -> None:
            await peer.receive()
            peer.confirm()

        nursery.start_soon(confirm)
        async with open_connection(f"ws://{'x' * 63}:8765/ws", "device_001", stream=peer.stream) as connection:
            assert not connection.closed


async def test_a_tls_context_that_cannot_be_a_clients_is_refused_and_leaves_no_socket_open() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        url = f"wss://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
        with pytest.raises(ConfigError, match="ssl_context cannot be used"):
            async with open_connection(url, "device_001", ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
                raise AssertionError("not reached")
        stream = await listener.accept()
        with trio.fail_after(60):
            assert await stream.receive_some() == b""
        await stream.aclose()


def test_threads_that_outlive_their_run_leave_the_next_run_all_of_its_threads() -> None:
    hanging = threading.Event()
    begun: list[str] = []

    def hang() -> str:
        begun.append("a thread")
        hanging.wait()
        return "late"

    async def give_up() -> None:
        async with trio.open_nursery() as nursery:
            before = len(begun)
            nursery.start_soon(read_token, hang, math.inf)
            await until(lambda: len(begun) > before)
            nursery.cancel_scope.cancel()

    async def read() -> str | None:
        with trio.fail_after(60):
            return await read_token(lambda: "token", math.inf)

    try:
        # More than may read at a time.
        for _ in range(10):
            trio.run(give_up)
    finally:
        hanging.set()
    assert trio.run(read) == "token"
