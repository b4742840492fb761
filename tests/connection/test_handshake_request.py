"""The handshake request has the path, host, headers and token that the caller gave."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
import trio
import trio.testing

from galaxy_trio import open_connection
from galaxy_trio.testing import PEER_URL, open_bare_peer
from tests.connection.support.opening import read_head


async def _request(
    url: str, *, token: str | None = None, headers: list[tuple[str, str]] | None = None
) -> tuple[str, list[tuple[str, str]]]:
    """Return the target and the headers of a client's handshake."""
    client_end, server_end = trio.testing.memory_stream_pair()
    head = b""
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            async with open_connection(url, "device_001", stream=client_end, token=token, headers=headers or ()):
                raise AssertionError("not reached")

        nursery.start_soon(connect)
        with trio.fail_after(60):
            head = await read_head(server_end)
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
async def test_the_request_has_the_urls_path_and_query_with_ws_as_the_default_path(url: str, target: str) -> None:
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
async def test_the_host_header_omits_the_schemes_default_port(url: str, host: str) -> None:
    headers = (await _request(url))[1]
    assert [value for name, value in headers if name == "host"] == [host]


async def test_given_headers_are_sent_after_those_of_the_handshake() -> None:
    given = [("Authorization", "Bearer abc"), ("X-Note", "  one  "), ("X-Other", "two"), ("X-Latin", "é")]
    headers = (await _request(PEER_URL, headers=given))[1]
    assert headers[-4:] == [("authorization", "Bearer abc"), ("x-note", "one"), ("x-other", "two"), ("x-latin", "é")]
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
async def test_a_token_is_quoted_and_appended_to_the_query(token: str, url: str, before: str) -> None:
    target = (await _request(url, token=token))[0]
    assert target.startswith(before)
    assert parse_qs(urlsplit(target).query)["token"] == [token]
    assert target.isascii()


async def test_a_host_name_may_have_63_characters() -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def confirm() -> None:
            await peer.receive()
            peer.confirm()

        nursery.start_soon(confirm)
        async with open_connection(f"ws://{'x' * 63}:8765/ws", "device_001", stream=peer.stream) as connection:
            assert not connection.closed
