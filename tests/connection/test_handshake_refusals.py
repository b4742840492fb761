"""A refused handshake says what to do: where a redirect leads, when to try again, what may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from galaxy_trio import ConnectFailed, HandshakeRejected, open_connection
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._printable import printable
from galaxy_trio._transport.url import parse_url, shown_redirect
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.testing import PEER_URL
from tests.connection.support.leaks import assert_not_shown
from tests.connection.support.opening import fail_on_answer, fail_to_open, read_head

SHOWN = "ws://peer.test:80/ws"
_FAILED = ": the server failed; its log may say why"
_GATEWAY = ": a proxy in front of the server cannot reach it; is the server running?"


async def _refuse(status: str, *headers: str, then_close: bool = False) -> HandshakeRejected:
    """Open a connection to a server with this answer."""
    head = "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 2", *headers, "", "no"]).encode("latin-1")
    error = await fail_on_answer(lambda _: head, then_close=then_close)
    assert isinstance(error, HandshakeRejected)
    assert error.status_code == int(status[:3])
    return error


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("103 Early Hints", ""),
        ("200 OK", ": is it a WebSocket server, and is the path of the URL right?"),
        ("301 Moved Permanently", ": it redirects elsewhere; is the URL right?"),
        ("304 Not Modified", ""),
        ("400 Bad Request", ": is the URL right, and does it begin with wss:// if the server uses TLS?"),
        ("402 Payment Required", ": is the URL right?"),
        ("401 Unauthorized", ": is the token right?"),
        ("403 Forbidden", ": is the token right?"),
        ("404 Not Found", ": is the path of the URL right?"),
        ("405 Method Not Allowed", ": is the path of the URL right?"),
        ("407 Proxy Authentication Required", ": a proxy on the way requires user and password"),
        (
            "421 Misdirected Request",
            ": it does not serve this host name; is the URL right, and the name among the server's allowed hosts (--allow-host)?",
        ),
        ("426 Upgrade Required", ": is it a WebSocket server?"),
        ("429 Too Many Requests", ": it has too many clients or requests; try again later"),
        ("500 Internal Server Error", _FAILED),
        ("501 Not Implemented", ": it has no WebSockets; is it another web server's port?"),
        ("502 Bad Gateway", _GATEWAY),
        ("503", ": it is overloaded, or not ready; try again later"),
        ("504 Gateway Timeout", _GATEWAY),
        ("599", _FAILED),
    ],
)
@pytest.mark.parametrize("then_close", [False, True], ids=["stays", "closes"])
async def test_status_other_than_101_is_a_rejection_that_says_what_to_do(
    status: str, hint: str, then_close: bool, autojump_clock: trio.testing.MockClock
) -> None:
    error = await _refuse(status, then_close=then_close)
    assert error.retry_after is None
    assert str(error) == f"{SHOWN} answered the WebSocket handshake with HTTP status {status[:3]}{hint}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://peer.test/ws", "wss://peer.test:443/ws"),
        ("wss://other.test:5000/aip", "wss://other.test:5000/aip"),
        ("/ws/", "ws://peer.test:80/ws/"),
        ("//other.test", "ws://other.test:80/"),
        ("aip", "ws://peer.test:80/aip"),
        ("https://user:s3cret@[2001:db8::1]:5000/ws?token=s3cret#s3cret", "wss://[2001:db8::1]:5000/ws"),
        ("/login;session=abc", "ws://peer.test:80/login…"),
        ("/login;token=s3cret", "ws://peer.test:80/…"),
        ("/login/s3cret/ws", "ws://peer.test:80/…"),
        ("/login/%733cret/ws", "ws://peer.test:80/…"),
        ("/a\x1b[31m\x9b", "ws://peer.test:80/a…"),
        ("/" + "a" * 10_000, "ws://peer.test:80/" + "a" * 199 + "…"),
    ],
)
async def test_redirect_says_where_to_without_secrets(
    status: int, location: str, shown: str, autojump_clock: trio.testing.MockClock
) -> None:
    head = f"HTTP/1.1 {status} Moved\r\nlocation:{location}\r\n\r\n".encode("latin-1")
    error = await fail_on_answer(lambda _: head, token="s3cret")
    assert str(error) == (
        f"{SHOWN} answered the WebSocket handshake with HTTP status {status}: "
        f"it redirects to {shown}; if that is the right server, use this URL"
    )


@pytest.mark.parametrize(
    "location",
    [
        "",
        "mailto:s3cret@peer.test",
        "https://",
        "https://[s3cret",
        "https://a..b/",
        "ftp://a.test",
        "ftp://a.test:21/",
        "ws://" + "a." * 200,
        "https://a:port",
    ],
)
async def test_redirect_to_no_server_is_a_redirect_all_the_same(
    location: str, autojump_clock: trio.testing.MockClock
) -> None:
    error = await _refuse("302 Found", f"Location: {location}")
    assert str(error).endswith("HTTP status 302: it redirects elsewhere; is the URL right?")


async def test_redirect_shows_no_secret_of_the_headers(caplog: pytest.LogCaptureFixture, every_log_line: None) -> None:
    # Python shows the lines of a call in a traceback, so the secret is in none of them.
    secret = "s3cret-T0ken"
    client_end, server_end = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await read_head(server_end)
        await server_end.send_all(f"HTTP/1.1 302 Found\r\nLocation: https://peer.test/login/{secret}\r\n\r\n".encode())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(HandshakeRejected, match=r"it redirects to wss://peer\.test:443/…;") as caught:
            async with open_connection(
                PEER_URL, "device_001", headers=[("Authorization", f"Bearer {secret}")], stream=client_end
            ):
                raise AssertionError("not reached")
    assert_not_shown(secret, caplog, caught.value)


async def test_redirect_arrives_in_pieces(autojump_clock: trio.testing.MockClock) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await read_head(server_end)
        for byte in b"HTTP/1.1 308 Permanent Redirect\r\nLocation: /aip\r\n\r\n":
            await server_end.send_all(bytes([byte]))
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert "it redirects to ws://peer.test:80/aip;" in str(await fail_to_open(PEER_URL, stream=client_end))


@pytest.mark.parametrize("end", [b"HTTP/1.1 302 Found\r\nLoc", b"HTTP/1.1 302 Found\r\nX: " + b"x" * 100_000])
async def test_redirect_with_a_broken_head_is_a_redirect_all_the_same(
    end: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    error = await fail_on_answer(lambda _: end, then_close=True)
    assert isinstance(error, HandshakeRejected)
    assert str(error).endswith("HTTP status 302: it redirects elsewhere; is the URL right?")


@pytest.mark.parametrize(
    ("status", "hint"),
    [("429 Too Many Requests", "it has too many clients or requests"), ("503 Busy", "it is overloaded, or not ready")],
)
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("Sun, 06 Nov 1994 08:51:37 GMT", 120),
        ("Sunday, 06-Nov-94 08:51:37 GMT", 120),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("Sun, 06 Nov 1994 08:51:37 -0000", None),
        ("-1", None),
        ("soon", None),
        ("9" * 400, None),
        ("", None),
    ],
)
async def test_busy_server_says_when_to_try_again(
    status: str,
    hint: str,
    value: str,
    seconds: int | None,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    monkeypatch.setattr(wall_clock, "source", lambda: datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC))
    error = await _refuse(status, f"Retry-After: {value}")
    assert error.retry_after == seconds
    when = "later" if seconds is None else f"in {seconds} s"
    assert str(error).endswith(f" HTTP status {status[:3]}: {hint}; try again {when}")


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", "the server does not speak HTTP; if it uses TLS, its URL begins with wss://"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "and does it begin with wss:// if the server uses TLS?"),
    ],
)
async def test_tls_is_suggested_only_for_a_url_without(answer: bytes, hint: str) -> None:
    for url in ("ws://a.test", "wss://a.test"):
        client_end, server_end = trio.testing.memory_stream_pair()
        client = TrioWebSocket(client_end, peer="the other", client=True, max_message_size=1000)
        await server_end.send_all(answer)
        with pytest.raises(ConnectFailed) as caught:
            await client.run_client(parse_url(url), [])
        assert str(caught.value).endswith(hint) is (url == "ws://a.test")
        await client.abort()


async def test_silence_after_the_first_line_of_a_redirect_ends_with_the_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await read_head(server_end)
        await server_end.send_all(b"HTTP/1.1 302 Found\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await fail_to_open(PEER_URL, stream=client_end, connect_timeout=7, within=8)
        assert trio.current_time() == pytest.approx(7)


@given(st.text(st.characters(max_codepoint=255)), st.booleans())
@example("https://user:pw@host:1/p\x9b", False)
@example("//\u00b5.test/", True)
@example("//[::1%\u00b5]/", True)
def test_any_redirect_is_shown_in_printable_ascii_without_the_token(location: str, with_token: bool) -> None:
    token = "S3-CRET"
    shown = shown_redirect("https://peer.test/ws", f"{location}/x{token if with_token else ''}", [token])
    if shown is not None:
        assert printable(shown) == shown
        assert token not in shown.partition("://")[2].partition("/")[2]
        assert len(shown) < 600
