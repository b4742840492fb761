"""Either package makes the same WebSocket: they understand each other, and meet what is not allowed in the same way."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import attrs
import pytest
import trio
import trio.testing
from memory_pair import listening_to
from wsproto.frame_protocol import FrameProtocol, Opcode

from galaxy_trio import ConfigError, ConnectFailed, DeviceConfig, open_connection, open_constellation
from galaxy_trio.agent import open_agent
from galaxy_trio.messages import DeviceInfo
from galaxy_trio.server import open_server
from galaxy_trio.testing import PEER_URL, FaultyStream
from galaxy_trio.transport import Transport
from galaxy_trio.transports import TransportName, find_transport
from galaxy_trio.url import parse_url
from galaxy_trio.websocket import TransportEnded, WebSocket
from galaxy_trio.websockets_transport import WebsocketsTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

MB = 2**20
Judge: TypeAlias = "Callable[[str, list[tuple[bytes, bytes]]], int]"
NAMES: list[TransportName] = ["trio-websocket", "websockets"]
either = pytest.mark.parametrize("name", NAMES)


@attrs.define(eq=False)
class End:
    """One end of a WebSocket in memory."""

    websocket: WebSocket
    stream: FaultyStream


def accept(path: str, headers: list[tuple[bytes, bytes]]) -> int:
    del path, headers
    return 101


@asynccontextmanager
async def open_ends(client: TransportName, server: TransportName, limit: int = MB) -> AsyncGenerator[tuple[End, End]]:
    """A client's and a server's end, open to each other."""
    streams = [FaultyStream(stream) for stream in trio.testing.memory_stream_pair()]
    ends = [
        End(find_transport(name)(stream, peer="the other", client=is_client, max_message_size=limit), stream)
        for name, stream, is_client in zip((client, server), streams, (True, False), strict=True)
    ]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.websocket.run_writer)
            async with trio.open_nursery() as handshake:
                handshake.start_soon(nursery.start, partial(ends[1].websocket.run_server, accept))
                handshake.start_soon(nursery.start, partial(ends[0].websocket.run_client, parse_url(PEER_URL), []))
            yield ends[0], ends[1]
            for end in ends:
                await end.websocket.abort()
                assert end.stream.closed
            nursery.cancel_scope.cancel()


# ---- which one


def test_each_name_is_of_the_package_that_makes_the_websocket() -> None:
    assert find_transport("trio-websocket") is Transport
    assert find_transport("websockets") is WebsocketsTransport


_OPENINGS: dict[str, Callable[[TransportName], AbstractAsyncContextManager[object]]] = {
    "connection": lambda name: open_connection("ws://127.0.0.1:9/ws", "d", transport=name),
    "agent": lambda name: open_agent("ws://127.0.0.1:9/ws", "d", transport=name, system_info=DeviceInfo("d", "linux")),
    "server": lambda name: open_server(transport=name),
    "constellation": lambda name: open_constellation([DeviceConfig("d", "ws://127.0.0.1:9/ws")], transport=name),
}


@pytest.mark.parametrize("role", _OPENINGS)
async def test_no_role_takes_a_transport_that_there_is_not(role: str) -> None:
    with trio.fail_after(5), pytest.raises(ConfigError) as caught:
        async with _OPENINGS[role](cast("TransportName", "aiohttp")):
            raise AssertionError("not reached")
    assert str(caught.value) == "a transport is 'trio-websocket' or 'websockets', and 'aiohttp' is neither"


@pytest.mark.parametrize("role", _OPENINGS)
async def test_without_its_package_every_role_says_what_to_install(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "galaxy_trio.websockets_transport")
    monkeypatch.setitem(sys.modules, "websockets.client", None)
    with trio.fail_after(5), pytest.raises(ConfigError) as caught:
        async with _OPENINGS[role]("websockets"):
            raise AssertionError("not reached")
    assert str(caught.value) == "the transport 'websockets' needs an extra: pip install 'galaxy_trio[fast]'"


async def test_it_works_without_the_packages_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "galaxy_trio.websockets_transport")
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    async with open_ends("websockets", "websockets") as (client, server):
        assert not isinstance(client.websocket, WebsocketsTransport)
        client.websocket.send_nowait("é" * 1000)
        assert await server.websocket.receive() == "é" * 1000


@either
async def test_a_constellation_a_server_and_an_agent_of_one_transport_work_together(name: TransportName) -> None:
    with trio.fail_after(10):
        async with open_server(transport=name) as server:
            info = DeviceInfo("d", "linux")
            async with (
                open_agent(server.url, "d", transport=name, system_info=info),
                open_constellation([DeviceConfig("d", server.url)], transport=name) as constellation,
            ):
                await constellation.wait_connected()
                assert (await constellation.run_task("hello")).unwrap() == {"echo": "hello"}


# ---- the same on the wire


@pytest.mark.parametrize("client_name", NAMES)
@pytest.mark.parametrize("server_name", NAMES)
async def test_either_client_understands_either_server(client_name: TransportName, server_name: TransportName) -> None:
    sizes = [0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**18]
    texts = [*("é" * (size // 2) + "x" * (size % 2) for size in sizes), "☃"]
    async with open_ends(client_name, server_name) as (client, server):
        for one, other in ((client, server), (server, client)):
            for text in texts:
                one.websocket.send_nowait(text)
                one.websocket.ping_nowait()
            assert [await other.websocket.receive() for _ in texts] == texts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.websocket.aclose, 1001, "leaving")
            with pytest.raises(TransportEnded) as caught:
                await server.websocket.receive()
        assert caught.value.code == 1001
        assert caught.value.reason == "the WebSocket was closed with 1001, going away 'leaving'"


@either
@pytest.mark.parametrize(
    ("code", "words"),
    [(1005, "no status rcvd"), (3999, "iana reserved"), (4999, "private reserved")],
)
async def test_a_close_is_told_in_the_same_words(name: TransportName, code: int, words: str) -> None:
    async with open_ends(name, name) as (client, server):
        payload = b"" if code == 1005 else code.to_bytes(2)
        await server.stream.send_all(bytes((0x88, len(payload))) + payload)
        with pytest.raises(TransportEnded) as caught:
            await client.websocket.receive()
        assert (caught.value.code, caught.value.reason) == (code, f"the WebSocket was closed with {code}, {words}")


@pytest.mark.parametrize("end", ["abort", "aclose"])
async def test_a_close_within_a_message_is_answered_before_the_socket_is_closed(end: str) -> None:
    async with open_ends("websockets", "websockets") as (client, server):
        await server.stream.send_all(b"\x01\x04part" + b"\x88\x02\x03\xf3")
        with pytest.raises(TransportEnded) as caught:
            await client.websocket.receive()
        assert caught.value.code == 1011
        await (client.websocket.abort() if end == "abort" else client.websocket.aclose())
        answer = FrameProtocol(client=False, extensions=[])
        answer.receive_bytes(bytes(await server.stream.receive_some()))
        assert [frame.opcode for frame in answer.received_frames()] == [Opcode.CLOSE]


@either
async def test_a_peer_that_closes_and_does_not_read_holds_up_the_end_for_a_second_at_most(
    name: TransportName, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_ends(name, name) as (client, server):
        client.stream.stall()
        client.websocket.send_nowait("unread")
        await server.stream.send_all(b"\x88\x02\x03\xe8")
        with pytest.raises(TransportEnded):
            await client.websocket.receive()
        await client.websocket.abort()
        assert trio.current_time() <= 1


@either
@pytest.mark.parametrize("closes", ["client", "server"])
async def test_closing_reads_on_past_a_flood_that_nobody_receives(name: TransportName, closes: str) -> None:
    async with open_ends(name, name) as (client, server):
        one, other = (client, server) if closes == "client" else (server, client)
        for number in range(1000):
            other.websocket.send_nowait(str(number))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.websocket.aclose)
            with pytest.raises(TransportEnded) as caught:
                await other.websocket.receive()
        assert caught.value.code == 1000


async def test_what_comes_while_it_is_closed_and_nobody_receives_is_not_kept() -> None:
    async with open_ends("websockets", "websockets") as (client, server), trio.open_nursery() as nursery:
        for number in range(1000):
            server.websocket.send_nowait(str(number))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.websocket.aclose)
        with pytest.raises(TransportEnded):
            await server.websocket.receive()
        await server.websocket.abort()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TransportEnded, match="closed by this side"):
            await client.websocket.receive()


@either
async def test_two_closes_at_once_and_one_after_them_are_one(name: TransportName) -> None:
    async with open_ends(name, name) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.websocket.aclose)
            nursery.start_soon(client.websocket.aclose)
            with pytest.raises(TransportEnded):
                await server.websocket.receive()
        await client.websocket.aclose()
        with pytest.raises(TransportEnded, match="closed by this side"):
            await client.websocket.receive()


@either
async def test_who_receives_while_another_task_closes_learns_of_the_end(name: TransportName) -> None:
    async with open_ends(name, name) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.websocket.aclose)
        await trio.testing.wait_all_tasks_blocked()

        async def receive() -> None:
            with pytest.raises(TransportEnded, match="closed by this side"):
                await client.websocket.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TransportEnded):
            await server.websocket.receive()
        await server.websocket.abort()


@either
async def test_a_close_within_a_message_is_a_close(name: TransportName) -> None:
    async with open_ends(name, name) as (client, server):
        await server.stream.send_all(b"\x01\x04part" + b"\x88\x02\x03\xf3")
        with pytest.raises(TransportEnded) as caught:
            await client.websocket.receive()
        assert caught.value.code == 1011


async def test_what_is_wrong_after_our_close_frame_gets_no_second_one() -> None:
    # The other package's end answers the close before anything can be wrong.
    async with open_ends("websockets", "websockets") as (client, server), trio.open_nursery() as nursery:
        with listening_to(client.stream) as written:
            nursery.start_soon(client.websocket.aclose)
            await trio.testing.wait_all_tasks_blocked()
            await server.stream.send_all(b"\xc1\x00")
            with trio.fail_after(5), pytest.raises(TransportEnded, match="closed by this side"):
                await client.websocket.receive()
            await trio.testing.wait_all_tasks_blocked()
        assert client.stream.closed
        # Header, key and code.
        assert len(written) == 2 + 4 + 2


# ---- a server's handshake


async def _ask(name: TransportName, request: bytes, judge: Judge) -> bytes:
    """What a server's end answers to a request until it closes, which it must do at once; it must have failed."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = find_transport(name)(theirs, peer="the client", client=False, max_message_size=MB)
    answer = b""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_writer)
            await ours.send_all(request)
            with pytest.raises(ConnectFailed) as caught:
                await nursery.start(partial(server.run_server, judge))
            await server.abort()
            while data := await ours.receive_some():
                answer += data
            nursery.cancel_scope.cancel()
    assert "was not let in" in str(caught.value)
    assert b"secret" not in repr(_chain(caught.value)).encode()
    return answer


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


_GOOD = [
    b"GET /ws?token=secret HTTP/1.1",
    b"Host: here.test",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
]


def _request(*lines: bytes) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


_NO_HANDSHAKES = {
    "no Host": _request(*_GOOD[:1], *_GOOD[2:]),
    "two Hosts": _request(*_GOOD, b"Host: there.test"),
    "no Upgrade": _request(*_GOOD[:2], *_GOOD[3:]),
    "no key": _request(*_GOOD[:4], *_GOOD[5:]),
    "an old version": _request(*_GOOD[:5], b"Sec-WebSocket-Version: 8"),
    "POST": _request(_GOOD[0].replace(b"GET", b"POST"), *_GOOD[1:]),
    "no protocol": _request(b"GET /ws?token=secret", *_GOOD[1:]),
    "not ASCII": _request("GET /ws?token=secret&é HTTP/1.1".encode(), *_GOOD[1:]),
    "a header that is none": _request(*_GOOD, b"secret"),
    "a line break first": b"\r\n" + _request(*_GOOD),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
}


@either
@pytest.mark.parametrize("what", _NO_HANDSHAKES)
async def test_what_is_no_handshake_is_not_judged_and_shows_no_token(name: TransportName, what: str) -> None:
    def judge(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        raise AssertionError(path)

    answer = await _ask(name, _NO_HANDSHAKES[what], judge)
    assert not answer.startswith(b"HTTP/1.1 101")
    assert b"secret" not in answer


@either
@pytest.mark.parametrize("status", [400, 403, 404, 429, 503])
async def test_who_is_judged_not_to_be_let_in_is_answered_with_that_status(name: TransportName, status: int) -> None:
    judged: list[tuple[str, list[tuple[bytes, bytes]]]] = []

    def judge(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        judged.append((path, headers))
        return status

    request = _request(*_GOOD, b"Origin: https://page.test", b"X-Latin: \xe9")
    answer = await _ask(name, request, judge)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    [(path, headers)] = judged
    assert path == "/ws?token=secret"
    assert {(b"host", b"here.test"), (b"origin", b"https://page.test"), (b"x-latin", b"\xe9")} <= set(headers)


@either
async def test_an_extension_that_a_client_offers_is_declined(name: TransportName) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = find_transport(name)(theirs, peer="the client", client=False, max_message_size=MB)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_writer)
            await ours.send_all(_request(*_GOOD, b"Sec-WebSocket-Extensions: permessage-deflate"))
            await nursery.start(partial(server.run_server, accept))
            answer = bytes(await ours.receive_some())
            assert answer.startswith(b"HTTP/1.1 101")
            assert b"deflate" not in answer
            # A compressed frame all the same.
            await ours.send_all(b"\xc1\x81\x00\x00\x00\x00x")
            with pytest.raises(TransportEnded) as caught:
                await server.receive()
            assert caught.value.code == 1002
            await server.abort()
            nursery.cancel_scope.cancel()
