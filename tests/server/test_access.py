"""Access control of WebSocket handshakes: tokens, origins, host names, addresses."""

from __future__ import annotations

import hmac
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio import ConfigError, HandshakeRejected, RegistrationRejected, open_connection
from galaxy_trio.server import open_server
from galaxy_trio.server.access import AccessPolicy, hosts_for, is_loopback
from galaxy_trio.testing import open_memory_server

if TYPE_CHECKING:
    from collections.abc import Iterable

HOST = (b"host", b"127.0.0.1:5000")


def handshake_status(
    path: str = "/ws",
    *headers: tuple[bytes, bytes],
    tokens: Iterable[str] | str | None = None,
    **allowed: Iterable[str],
) -> int:
    return AccessPolicy(tokens, **allowed).handshake_status(path, [HOST, *headers])


@pytest.mark.parametrize(
    "path", ["/", "/ws/", "/wss", "/ws/x", "ws", "//evil/ws", "http://evil/ws", "http://[/ws", "", "*"]
)
def test_only_the_servers_path_is_accepted(path: str) -> None:
    assert handshake_status(path) == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 403),
        ("?token=", 403),
        ("?token=wrong", 403),
        ("?token=right ", 403),
        ("?token=righ", 403),
        ("?TOKEN=right", 403),
        ("?token=wrong&token=right", 403),
        ("?token=right", 101),
        ("?a=b&token=right", 101),
        ("?token=%72ight", 101),
        ("?token=new", 101),
        ("?token=\udcff", 403),
    ],
)
def test_any_of_several_tokens_is_accepted_and_nothing_else(query: str, status: int) -> None:
    assert handshake_status("/ws" + query, tokens=["right", "new"]) == status


def test_all_tokens_are_always_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    original = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return original(one, other)

    access = AccessPolicy(["first", "second"])
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for token in ("first", "second", "neither"):
        access.handshake_status(f"/ws?token={token}", [HOST])
    assert compared == [b"first", b"second"] * 3


@pytest.mark.parametrize("tokens", ["", [], [""], ["good", ""]])
async def test_empty_tokens_are_refused(tokens: str | list[str]) -> None:
    with pytest.raises(ConfigError, match="would accept every client"):
        async with open_server(token=tokens):
            raise AssertionError("listens")
    with pytest.raises(ConfigError, match="would accept every client"):
        async with open_memory_server(token=tokens):
            raise AssertionError("runs")


@pytest.mark.parametrize("tokens", ["s3cret\udcff", ["good", "s3cret\udcff"]])
def test_token_that_cannot_be_encoded_is_refused_without_showing_it(tokens: str | list[str]) -> None:
    with pytest.raises(ConfigError, match="a token holds characters that cannot be sent") as caught:
        AccessPolicy(tokens)
    assert caught.value.__context__ is None


async def test_both_tokens_work_over_a_socket_while_they_are_rotated() -> None:
    async with open_server(token=["old-t0ken", "new-t0ken"]) as server:
        for token in ("old-t0ken", "new-t0ken"):
            with trio.fail_after(60), pytest.raises(RegistrationRejected, match="'device' is not connected"):
                async with open_connection(server.url, "device", token=token):
                    raise AssertionError("registered")
        for wrong in (None, "no-t0ken"):
            with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
                async with open_connection(server.url, "device", token=wrong):
                    raise AssertionError("registered")
            assert caught.value.status_code == 403
            assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_recognized_by_name_and_by_address(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_web_page_is_refused_unless_its_origin_is_allowed() -> None:
    evil, good = (b"Origin", b"https://evil.example"), (b"origin", b"https://good.example")
    allowed = ["https://good.example"]
    assert handshake_status("/ws", evil) == 403
    assert handshake_status("/ws", (b"origin", b"null")) == 403
    assert handshake_status("/ws", (b"origin", b"")) == 403
    assert handshake_status("/ws", evil, allowed_origins=allowed) == 403
    assert handshake_status("/ws", good, allowed_origins=allowed) == 101
    assert handshake_status("/ws", good, evil, allowed_origins=allowed) == 403
    assert handshake_status("/ws", (b"origin", b"https://good.example.evil"), allowed_origins=allowed) == 403
    assert handshake_status("/ws") == 101


@pytest.mark.parametrize(
    ("allowed", "error"), [([], HandshakeRejected), (["https://page.example"], RegistrationRejected)]
)
async def test_foreign_page_is_refused_even_with_the_token_until_its_origin_is_allowed(
    allowed: list[str], error: type[Exception]
) -> None:
    async with open_server(token="t", allowed_origins=allowed) as server:
        with trio.fail_after(60), pytest.raises(error, match="not connected" if allowed else "403"):
            async with open_connection(server.url, "device", token="t", headers=[("Origin", "https://page.example")]):
                raise AssertionError("registered")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"localhost", "localhost"),
        (b"LocalHost:5000", "localhost"),
        (b"127.0.0.1:1", "127.0.0.1"),
        (b"[::1]", "::1"),
        (b"[::1]:5000", "::1"),
        (b"evil.example", None),
        (b"localhost.evil.example", None),
        (b"127.0.0.1.evil.example:80", None),
        (b"[::1", None),
        (b"", None),
    ],
)
def test_server_at_loopback_accepts_only_loopbacks_names(host: bytes, name: str | None) -> None:
    access = AccessPolicy(None, allowed_hosts=hosts_for("127.0.0.1", None))
    assert access.handshake_status("/ws", [(b"Host", host)]) == (421 if name is None else 101)


def test_other_names_can_be_allowed_and_elsewhere_the_default_is_any() -> None:
    def at(address: str, allowed: list[str] | None, host: bytes) -> int:
        return AccessPolicy(None, allowed_hosts=hosts_for(address, allowed)).handshake_status("/ws", [(b"host", host)])

    assert at("127.0.0.1", ["proxy.example"], b"proxy.example:443") == 101
    assert at("127.0.0.1", ["proxy.example"], b"localhost:443") == 101
    assert at("127.0.0.1", ["proxy.example"], b"evil.example") == 421
    assert at("127.9.9.9", None, b"127.9.9.9") == 101
    assert at("0.0.0.0", None, b"evil.example") == 101  # noqa: S104  # nothing listens
    assert at("0.0.0.0", ["good.example", "[fe80::1]"], b"evil.example") == 421  # noqa: S104  # nothing listens
    assert at("0.0.0.0", ["good.example", "[fe80::1]"], b"GOOD.example:1") == 101  # noqa: S104  # nothing listens
    assert at("0.0.0.0", ["good.example", "[fe80::1]"], b"[fe80::1]:1") == 101  # noqa: S104  # nothing listens


@given(st.text(max_size=30), st.lists(st.tuples(st.sampled_from([b"host", b"origin", b"x"]), st.binary(max_size=30))))
def test_any_request_gets_a_status(path: str, headers: list[tuple[bytes, bytes]]) -> None:
    assert AccessPolicy("t", allowed_hosts=["h"]).handshake_status(path, headers) in (403, 404, 421)


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", b"421"), ("localhost", b"101"), ("127.0.0.1:80", b"101")]
)
@pytest.mark.parametrize("name", ["Host", "host", "HOST"])
async def test_page_whose_name_resolves_to_this_machine_is_refused(name: str, host: str, status: bytes) -> None:
    async with open_server() as server, AsyncExitStack() as stack:
        port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
        stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
        request = (
            f"GET /ws HTTP/1.1\r\n{name}: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await stream.send_all(request.encode())
        with trio.fail_after(60):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + status)


async def test_name_that_is_not_allowed_raises_handshake_rejected_in_the_client() -> None:
    async with open_server() as server:
        port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(HandshakeRejected) as caught:
            async with open_connection("ws://evil.example/ws", "device", stream=stream):
                raise AssertionError("not reached")
    assert caught.value.status_code == 421
    assert "--allow-host" in str(caught.value)
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("host", ["Proxy.Example.:443", "[0:0:0:0:0:0:0:1]", "PROXY.example"])
def test_host_is_compared_as_browsers_do(host: str) -> None:
    access = AccessPolicy(None, allowed_hosts=hosts_for("127.0.0.1", ["proxy.example."]))
    assert access.handshake_status("/ws", [(b"Host", host.encode())]) == 101


@pytest.mark.parametrize("name", ["proxy.example:443", "https://proxy.example", "proxy.example/ws", "", "m\u00fcnchen"])
def test_name_that_no_host_header_can_match_is_reported(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a host name without a port"):
        AccessPolicy(None, allowed_hosts=[name])


async def test_a_single_host_and_a_single_origin_are_not_split_into_letters() -> None:
    policy = AccessPolicy(allowed_hosts="example.org", allowed_origins="https://example.org")
    headers = [(b"host", b"example.org"), (b"origin", b"https://example.org")]
    assert policy.handshake_status("/ws", headers) == 101
    assert policy.handshake_status("/ws", [(b"host", b"e")]) == 421
    assert policy.handshake_status("/ws", [(b"host", b"example.org"), (b"origin", b"h")]) == 403
    assert hosts_for("127.0.0.1", "example.org") == {"localhost", "127.0.0.1", "::1", "example.org"}
    async with open_server(allowed_hosts="example.org") as server:
        assert server.url.startswith("ws://127.0.0.1:")
