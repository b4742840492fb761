"""A server's end rejects malformed handshakes and declines extensions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio._transport.websocket import TrioWebSocket
from tests.connection.support.leaks import chain
from tests.transport.support.memory_pair import MB, accept

if TYPE_CHECKING:
    from collections.abc import Callable

Judge: TypeAlias = "Callable[[str, list[tuple[bytes, bytes]]], int]"


async def _ask(request: bytes, judge: Judge) -> bytes:
    """Return a server's whole answer to a request whose handshake must fail."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = TrioWebSocket(theirs, peer="the client", client=False, max_message_size=MB)
    answer = b""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_writer)
            await ours.send_all(request)
            with pytest.raises(ConnectFailed) as caught:
                await nursery.start(partial(server.run_server, judge))
            await server.abort()
            while data := await ours.receive_some():
                answer += data
            nursery.cancel_scope.cancel()
    assert "was rejected" in str(caught.value)
    assert b"secret" not in repr(list(chain(caught.value))).encode()
    return answer


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
    "an invalid header": _request(*_GOOD, b"secret"),
    "a line break first": b"\r\n" + _request(*_GOOD),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
}


@pytest.mark.parametrize("what", _NO_HANDSHAKES)
async def test_a_malformed_handshake_is_refused_before_it_is_judged_without_showing_a_token(what: str) -> None:
    def judge(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        raise AssertionError(path)

    answer = await _ask(_NO_HANDSHAKES[what], judge)
    assert not answer.startswith(b"HTTP/1.1 101")
    assert b"secret" not in answer


@pytest.mark.parametrize("status", [400, 403, 404, 429, 503])
async def test_a_rejected_client_gets_the_status_and_the_judge_gets_its_whole_request(status: int) -> None:
    judged: list[tuple[str, list[tuple[bytes, bytes]]]] = []

    def judge(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        judged.append((path, headers))
        return status

    request = _request(*_GOOD, b"Origin: https://page.test", b"X-Latin: \xe9")
    answer = await _ask(request, judge)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    [(path, headers)] = judged
    assert path == "/ws?token=secret"
    assert {(b"host", b"here.test"), (b"origin", b"https://page.test"), (b"x-latin", b"\xe9")} <= set(headers)


async def test_an_extension_that_a_client_offers_is_declined() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = TrioWebSocket(theirs, peer="the client", client=False, max_message_size=MB)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_writer)
            await ours.send_all(_request(*_GOOD, b"Sec-WebSocket-Extensions: permessage-deflate"))
            await nursery.start(partial(server.run_server, accept))
            answer = bytes(await ours.receive_some())
            assert answer.startswith(b"HTTP/1.1 101")
            assert b"deflate" not in answer
            # The client sends a compressed frame anyway.
            await ours.send_all(b"\xc1\x81\x00\x00\x00\x00x")
            with pytest.raises(TransportEnded) as caught:
                await server.receive()
            assert caught.value.code == 1002
            await server.abort()
            nursery.cancel_scope.cancel()
