"""Who may ask the daemon what: everything that a hostile client or web page would try, over real sockets."""

from __future__ import annotations

import hmac
import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import h11
import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import galaxy_trio.daemon.web.security
from galaxy_trio.daemon.web.security import MAX_BODY, Security
from galaxy_trio.daemon.web.serving import serve_http
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp

pytestmark = pytest.mark.daemon

TOKEN = "t0ken-of-the-daemon"
JSON = ("Content-Type", "application/json")


async def _echo(request: Request) -> Response:
    return JSONResponse({"method": request.method, "body": (await request.body()).decode()})


async def _page(_request: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response("<p>", headers={"Content-Security-Policy": "default-src 'self'"})


APP = Starlette(
    routes=[
        Route("/echo", _echo, methods=["GET", "POST", "DELETE"]),
        Route("/open", _echo),
        Route("/", _page),
    ]
)


@attrs.define
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@attrs.define
class Http:
    """A daemon's door, and who knocks."""

    port: int
    tokens: list[str]
    hosts: list[str]

    async def raw(self, *pieces: bytes) -> bytes:
        """Send bytes, and read until the other end closes."""
        with trio.fail_after(SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                received = b""
                try:
                    for piece in pieces:
                        await stream.send_all(piece)
                    async for more in stream:
                        received += more
                except trio.BrokenResourceError:
                    pass
                return received

    async def ask(
        self,
        path: str = "/echo",
        *headers: tuple[str, str],
        method: str = "GET",
        host: str | None = "localhost",
        token: str | None = TOKEN,
        body: bytes = b"",
    ) -> Answer:
        """One request, as it is given."""
        lines = [f"{method} {path} HTTP/1.1", "Connection: close"]
        if host is not None:
            lines.append(f"Host: {host}")
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return parse(await self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body))


def parse(received: bytes) -> Answer:
    """The response in what was received."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(received)
    http.receive_data(b"")
    response = http.next_event()
    while isinstance(response, h11.InformationalResponse):
        response = http.next_event()
    assert isinstance(response, h11.Response), received
    body = bytearray()
    while isinstance(event := http.next_event(), h11.Data):
        body += event.data
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return Answer(response.status_code, headers, bytes(body))


@asynccontextmanager
async def open_http(
    app: ASGIApp = APP,
    *,
    secure: bool = True,
    tokens: Sequence[str] = (TOKEN,),
    hosts: Sequence[str] = (),
    **limits: Any,
) -> AsyncGenerator[Http]:
    """Serve an application on loopback."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    http = Http(listener.socket.getsockname()[1], list(tokens), list(hosts))
    if secure:
        app = Security(app, tokens=lambda: http.tokens, hosts=lambda: http.hosts, open_paths=["/open", "/"])
    async with serve_http(app, [listener], **limits):
        yield http


# ---- names


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:8765",
        "[::1]",
        "[::1]:8765",
        "192.0.2.7:1",
        "galaxy.example",
    ],
)
async def test_own_host_names_and_ip_addresses_are_allowed(host: str) -> None:
    async with open_http(hosts=["Galaxy.Example"]) as http:
        assert (await http.ask(host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "galaxy.example.",
        "[attacker]",
        "localhost@attacker.example",
    ],
)
async def test_other_host_names_are_refused(host: str) -> None:
    async with open_http(hosts=["other.example"]) as http:
        answer = await http.ask(host=host)
        assert answer.status == 421
        assert "allowed_hosts" in answer.error


@pytest.mark.parametrize("host", ["localhost:80:90", "localhost:x", "[::1]x", "localhost:", "localhost:8\u00b2"])
async def test_invalid_host_header_is_refused(host: str) -> None:
    async with open_http() as http:
        assert (await http.ask(host=host)).status == 400


async def test_request_must_have_exactly_one_host_header() -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("Host", "attacker.example"))).status == 400
        assert (await http.ask(host=None)).status == 400
        old = parse(await http.raw(b"GET /open HTTP/1.0\r\n\r\n"))
        assert (old.status, old.error) == (400, "the header Host is missing")


# ---- sites


@pytest.mark.parametrize(
    "headers",
    [
        (("Origin", "http://attacker.example"),),
        (("Origin", "null"),),
        (("Origin", "http://localhost:1"),),
        (("Origin", "file://"),),
        (("Sec-Fetch-Site", "cross-site"),),
        (("Sec-Fetch-Site", "same-site"),),
        (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")),
    ],
)
async def test_requests_from_pages_of_other_sites_are_refused(
    headers: Sequence[tuple[str, str]],
) -> None:
    async with open_http() as http:
        for method in ("GET", "POST", "DELETE"):
            answer = await http.ask("/echo", *headers, method=method, host="localhost:8765")
            assert (answer.status, answer.error) == (403, "requests of other sites' pages are refused")


@pytest.mark.parametrize(
    "headers",
    [
        (("Origin", "http://localhost:8765"),),
        (("Origin", "https://LOCALHOST:8765"),),
        (("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")),
        (("Sec-Fetch-Site", "none"),),
    ],
)
async def test_requests_from_the_daemons_own_page_are_allowed(headers: Sequence[tuple[str, str]]) -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", *headers, method="POST", host="localhost:8765")).status == 200


async def test_link_from_another_site_may_lead_to_the_page_only() -> None:
    follow = (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"))
    async with open_http() as http:
        assert (await http.ask("/", *follow, token=None)).status == 200
        assert (await http.ask("/", *follow, method="POST")).status == 403
        assert (await http.ask("/", ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"))).status == 403


# ---- tokens


@pytest.mark.parametrize("token", ["wrong", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "", f" {TOKEN}", "t0k\u00e9n"])
async def test_wrong_token_is_refused_and_shown_nowhere(token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_http() as http:
        answer = await http.ask(token=token)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN not in answer.body.decode() + caplog.text
        assert not token.strip() or token not in answer.body.decode() + caplog.text


async def test_only_open_paths_need_no_token() -> None:
    async with open_http() as http:
        for path in ("/echo", "/nothing", "/open/", "/open/../echo", "//open", "/%6fpen/x"):
            assert (await http.ask(path, token=None)).status == 401
        assert (await http.ask("/open", token=None)).status == 200


@pytest.mark.parametrize(
    "header",
    [f"Basic {TOKEN}", TOKEN, f"bearer  {TOKEN}", f"Bearer\t{TOKEN}", f"Bearer {TOKEN}, Bearer x"],
)
async def test_other_authorization_schemes_and_forms_are_refused(header: str) -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("Authorization", header), token=None)).status == 401


async def test_authorization_scheme_is_case_insensitive() -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("authorization", f"bEARER {TOKEN}"), token=None)).status == 200


async def test_request_with_two_tokens_is_refused() -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("Authorization", f"Bearer {TOKEN}"))).status == 400


async def test_several_tokens_are_valid_and_can_be_replaced_at_any_time() -> None:
    async with open_http(tokens=["one", "two"]) as http:
        assert [(await http.ask(token=token)).status for token in ("one", "two", "three")] == [200, 200, 401]
        http.tokens[:] = ["three"]
        assert [(await http.ask(token=token)).status for token in ("one", "three")] == [401, 200]
        http.tokens.clear()
        assert (await http.ask(token=None)).status == 200


async def test_all_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    original = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return original(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    async with open_http(tokens=["one", "two", "three"]) as http:
        assert (await http.ask(token="one")).status == 200
    assert compared == [b"one", b"two", b"three"]


# ---- bodies


@pytest.mark.parametrize(
    "kind",
    [(), (("Content-Type", "text/plain"),), (("Content-Type", "application/x-www-form-urlencoded"),),
     (("Content-Type", "multipart/form-data; boundary=x"),), (("Content-Type", "application/jsonx"),), (("Content-Type", ""),)],
)  # fmt: skip
async def test_body_without_a_json_content_type_is_refused(kind: Sequence[tuple[str, str]]) -> None:
    async with open_http() as http:
        for method in ("POST", "GET", "DELETE"):
            answer = await http.ask("/echo", *kind, method=method, body=b'{"a": 1}')
            assert (answer.status, "application/json" in answer.error) == (415, True)


async def test_json_with_a_character_set_and_an_empty_body_without_a_type_are_accepted() -> None:
    async with open_http() as http:
        answer = await http.ask(
            "/echo", ("Content-Type", "Application/JSON; charset=utf-8"), method="POST", body=b'{"a": 1}'
        )
        assert json.loads(answer.body)["body"] == '{"a": 1}'
        assert (await http.ask("/echo", ("Content-Length", "0"), method="POST")).status == 200


async def test_request_with_two_content_types_is_refused() -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", JSON, ("Content-Type", "text/plain"), method="POST", body=b"{}")).status == 400


async def test_too_large_body_is_refused_before_it_is_read() -> None:
    async with open_http() as http:
        answer = await http.ask("/echo", JSON, ("Content-Length", str(MAX_BODY + 1)), method="POST")
        assert answer.status == 413
        largest = await http.ask("/echo", JSON, method="POST", body=b" " * MAX_BODY)
        assert largest.status == 200


async def test_chunked_body_is_refused_as_soon_as_it_is_too_large() -> None:
    head = (
        f"POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    )
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    async with open_http() as http:
        received = await http.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *[piece] * 17)
        assert parse(received).status == 413


async def test_body_that_does_not_arrive_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.security, "_BODY_WITHIN", 0.05)
    head = (
        f"POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    )
    async with open_http() as http:
        received = await http.raw(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert parse(received).status == 408


async def test_request_with_an_incomplete_body_reaches_no_handler() -> None:
    reached: list[Request] = []

    async def note(request: Request) -> Response:
        reached.append(request)
        return await _echo(request)

    app = Starlette(routes=[Route("/echo", note, methods=["POST"])])
    head = (
        f"POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    )
    async with open_http(app) as http:
        async with await trio.open_tcp_stream("127.0.0.1", http.port) as stream:
            await stream.send_all(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert (await http.ask("/echo", method="POST")).status == 200
        assert len(reached) == 1


async def test_too_large_target_and_headers_are_refused() -> None:
    async with open_http() as http:
        for path, headers in (
            ("/echo", [("X", "x" * 20_000)]),
            ("/" + "x" * 20_000, []),
            ("/echo?" + "x" * 20_000, []),
            ("/echo", [("X", "y" * 100)] * 200),
        ):
            answer = await http.ask(path, *headers)
            assert (answer.status, "16384 bytes" in answer.error) == (431, True)
        assert (await http.ask("/echo", ("X", "x" * 10_000))).status == 200


# ---- protocols


async def test_http_2_prefaces_and_websocket_upgrades_are_refused() -> None:
    async with open_http() as http:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        with trio.move_on_after(0.3):
            assert b"HTTP/1.1 200" not in await http.raw(preface)
        upgrade = (
            "GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {TOKEN}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert b" 403 " in (await http.raw(upgrade.encode())).split(b"\r\n")[0]
        assert (await http.ask()).status == 200


async def test_request_with_an_ambiguous_end_is_refused() -> None:
    head = (
        f"POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    )
    async with open_http() as http:
        both = f"{head}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        assert parse(await http.raw(both.encode())).status == 400
        assert parse(await http.raw(f"{head}\r\n".replace("HTTP/1.1", "HTTP/9.9").encode())).status == 505


async def test_http_2_request_is_answered_with_505() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    async def receive() -> Any:
        await trio.sleep_forever()

    async def never(*_: object) -> None:
        raise AssertionError("not reached")

    security = Security(never, tokens=list, hosts=list)
    scope: dict[str, Any] = {"type": "http", "http_version": "2", "method": "GET", "path": "/", "headers": []}
    await security(scope, receive, send)
    assert sent[0]["status"] == 505
    await security({"type": "lifespan"}, receive, send)
    assert len(sent) == 2


# ---- what every response has


@pytest.mark.parametrize("ask", [{}, {"token": "wrong"}, {"host": "attacker.example"}, {"path": "/nothing"}])
async def test_every_response_has_the_security_headers(ask: dict[str, Any]) -> None:
    async with open_http() as http:
        headers = (await http.ask(**ask)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


async def test_handler_may_replace_the_content_security_policy() -> None:
    async with open_http() as http:
        assert (await http.ask("/")).headers["content-security-policy"] == "default-src 'self'"
