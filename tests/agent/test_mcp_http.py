"""MCP servers over HTTP: a real one as a process, and one with given replies. On the real clock."""

from __future__ import annotations

import json
import ssl
import threading
from functools import partial
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio
import trustme

from galaxy_trio.agent import McpServer, mcp_http, open_mcp_tools
from galaxy_trio.errors import ConfigError
from tests.agent.support.http_servers import Answer, open_http_server, open_odd_http_server
from tests.agent.test_mcp import call, failure, named, opened, runs, until
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.programs


@pytest.mark.parametrize("option", ["json", "events"])
async def test_tools_of_a_url_are_offered_and_called(option: str) -> None:
    async with open_http_server(option) as server, opened(McpServer("web", url=server.url)) as tools:
        assert {tool.namespace for tool in tools.tools()} == {"web"}
        assert await call(tools, "add", a=1, b=2) == {"result": 3}
        assert "validation" in await failure(tools, "add", a="one")
        assert len(str(await call(tools, "big", size=2_000_000))) > 2_000_000


async def test_changed_list_of_a_url_is_requested_again() -> None:
    async with open_http_server() as server, opened(McpServer("web", url=server.url)) as tools:

        async def plus_is_listed() -> bool:
            # The stream of notifications may not be open yet when the first one is sent.
            await call(tools, "learn", tool="plus")
            return "plus" in {tool.name for tool in tools.tools()}

        await until(plus_is_listed)
        assert await call(tools, "plus", a=1, b=2) == {"result": 3}


async def test_token_and_headers_are_sent_and_read_again_for_the_next_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("wr0ng")
    async with open_http_server(token="t0ken") as server:
        mcp = McpServer("web", url=server.url, token=file.read_text, headers=[("X-Team", "blue")])
        async with opened(mcp) as tools:
            assert tools.tools() == []
            file.write_text("t0ken")

            async def tools_are_listed() -> bool:
                return bool(tools.tools())

            await until(tools_are_listed)
            assert await named(tools, "header").call({"name": "x-team"}) == {"result": "blue"}
    assert "replied with HTTP status 401 Unauthorized: is the token right?" in caplog.text
    assert f"http://127.0.0.1:{server.port} replied" in caplog.text
    assert "wr0ng" not in caplog.text
    assert "t0ken" not in caplog.text


async def test_restarted_server_is_connected_to_again() -> None:
    async with open_http_server() as first, opened(McpServer("web", url=first.url)) as tools:
        before = await call(tools, "process_id")
        await first.kill()
        reason = await failure(tools, "add", a=1, b=2)
        assert "127.0.0.1" in reason or "is not running" in reason
        async with open_http_server(port=first.port):
            await until(partial(runs, tools))
            assert await call(tools, "process_id") != before


async def test_server_that_forgot_the_session_gets_a_new_one() -> None:
    async with open_http_server() as first, opened(McpServer("web", url=first.url)) as tools:
        await call(tools, "process_id")
        await first.kill()
        # Restarted before anything notices it.
        async with open_http_server(port=first.port):
            await until(partial(runs, tools))
            assert await call(tools, "add", a=1, b=2) == {"result": 3}


async def test_progress_extends_a_call_over_http() -> None:
    async with open_http_server() as server, opened(McpServer("web", url=server.url, call_timeout=2)) as tools:
        assert await call(tools, "wait", seconds=5, steps=20) == {"result": "waited"}
        assert "took longer than 2 s" in await failure(tools, "wait", seconds=SECONDS, steps=1)


async def test_session_of_a_url_ends_with_the_block_within_its_limit() -> None:
    methods: list[str] = []

    def answer(method: str, body: bytes) -> Answer:
        methods.append(method)
        return replies(method, body)

    async with open_odd_http_server(answer) as url:
        async with opened(McpServer("web", url=url)):
            pass
    assert methods[-1] == "DELETE"


async def test_server_that_cannot_be_reached_is_tried_again_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    url = "http://127.0.0.1:9/mcp?key=s3cret"
    async with opened(McpServer("web", url=url)) as tools:
        assert tools.tools() == []

        async def is_logged() -> bool:
            return "trying again" in caplog.text

        await until(is_logged)
    assert "MCP server 'web': cannot connect to http://127.0.0.1:9: connection refused; trying again" in caplog.text
    assert "s3cret" not in caplog.text


HANDSHAKE: dict[str, object] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "serverInfo": {"name": "odd", "version": "1"},
}
TOOLS: dict[str, object] = {"tools": [{"name": "answer", "inputSchema": {"type": "object"}}]}
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


def replies(method: str, body: bytes, called: Answer = (200, JSON, b"{}")) -> Answer:
    """The replies of a server whose calls are answered with `called`."""
    if method != "POST":
        return 405, {}, b""
    message = json.loads(body)
    match message["method"]:
        case "initialize":
            result = HANDSHAKE
        case "tools/list":
            result = TOOLS
        case "tools/call":
            status, headers, content = called
            return status, headers, content.replace(b"ID", json.dumps(message["id"]).encode())
        case _:
            return 202, {}, b""
    text = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
    return 200, {**JSON, "mcp-session-id": "1"}, text.encode()


BROKEN: list[tuple[Answer, str]] = [
    ((200, JSON, b'{"jsonrpc": "2.0", "id": ID, "result": []}'), "its reply has neither a result nor an error"),
    ((200, JSON, b"not JSON"), "its reply is not a message of the protocol"),
    ((200, JSON, b'{"a": 1}'), "its reply is not a message of the protocol"),
    ((200, JSON, b'{"jsonrpc": "2.0", "id": ID, "error": "no"}'), "no"),
    ((200, JSON, b'"' + b"x" * 200_000), "its reply has more than 100000 bytes"),
    ((200, EVENTS, b"data: not JSON\n\n"), "the connection ended before it replied"),
    (
        (200, EVENTS, b"data: " + b"x" * 200_000),
        "its reply has more than 100000 bytes",
    ),
    ((200, EVENTS, b": nothing\n\n"), "the connection ended before it replied"),
    (
        (200, {"content-type": "text/html"}, b"<p>"),
        "its reply has the content type 'text/html', not that of a message",
    ),
    ((200, {**JSON, "content-encoding": "gzip"}, b"\x1f\x8b"), "its reply is not a message of the protocol"),
    ((202, {}, b""), "its reply is empty"),
    ((0, {}, b""), "failed: RemoteProtocolError"),
    (
        (
            200,
            {**EVENTS, "transfer-encoding": "chunked"},
            b'event: ping\ndata: x\n\ndata: {"id": ID, "error": "no"}\n\n|rest|rest',
        ),
        "no",
    ),
    ((400, JSON, b'{"jsonrpc": "2.0", "id": ID, "error": {"code": -32602, "message": "so not"}}'), "so not"),
    ((500, {}, b"oops"), "replied with HTTP status 500 Internal Server Error"),
    ((403, {}, b""), "replied with HTTP status 403 Forbidden: is the token right?"),
    ((599, {}, b""), "replied with HTTP status 599"),
]


@pytest.mark.parametrize(("called", "reason"), BROKEN)
async def test_broken_reply_over_http_fails_its_call_alone(
    called: Answer, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = True

    def answer(method: str, body: bytes) -> Answer:
        nonlocal first
        if b"tools/call" not in body or first:
            first = first and b"tools/call" not in body
            return replies(method, body, called)
        return replies(method, body, (200, JSON, b'{"jsonrpc": "2.0", "id": ID, "result": {"content": []}}'))

    async with open_odd_http_server(answer) as url, trio.open_nursery():
        async with open_mcp_tools([McpServer("web", url=url)], max_message_size=100_000) as tools:
            assert reason in await failure(tools, "answer")
            assert await call(tools, "answer") is None
    assert "Traceback" not in caplog.text
    assert "validation error" not in caplog.text
    assert "s3cret" not in caplog.text


async def test_redirect_to_another_host_is_named_and_not_followed() -> None:
    called = (307, {"location": "http://elsewhere.example/mcp?key=s3cret"}, b"")
    async with open_odd_http_server(partial(replies, called=called)) as url:
        async with opened(McpServer("web", url=url, token="t0ken")) as tools:
            reason = await failure(tools, "answer")
    assert "redirects to http://elsewhere.example/mcp: use that URL" in reason
    assert "s3cret" not in reason


@pytest.mark.parametrize(("token", "headers"), [("a\nb", ()), ("t0ken", [("X y", "1")]), (lambda: "\ud800", ())])
async def test_credentials_that_cannot_be_sent_are_a_config_error(token: str, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ConfigError, match="MCP server 'web': ") as caught:
        async with open_mcp_tools([McpServer("web", url="http://127.0.0.1:9", token=token, headers=headers)]):
            raise AssertionError
    assert "t0ken" not in str(caught.value)


MODERN: dict[str, object] = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {},
    "ttlMs": 0,
    "cacheScope": "private",
    "resultType": "complete",
}


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_cancelling_a_call_ends_its_request_and_notifies_servers_that_expect_it(modern: bool) -> None:
    called = trio.Event()
    notified = trio.Event()

    def answer(method: str, body: bytes) -> Answer:
        message = json.loads(body or b"{}")
        if message.get("method") == "tools/call":
            called.set()
        if message.get("method") == "notifications/cancelled":
            notified.set()
            # What comes of it does not matter.
            return 0, {}, b""
        if modern and message.get("method") == "initialize":
            return 404, {}, b""
        if modern and message.get("method") == "server/discover":
            return 200, JSON, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": MODERN}).encode()
        return replies(method, body, (-1, {}, b""))

    async with open_odd_http_server(answer) as url, opened(McpServer("web", url=url)) as tools:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, tools, "answer")
            await called.wait()
            nursery.cancel_scope.cancel()
        if not modern:
            await notified.wait()
    assert notified.is_set() != modern


async def test_request_of_the_server_within_a_reply_is_answered() -> None:
    answers: list[object] = []
    events = b'data: {"id": 7, "method": "ping"}\n\ndata: {"id": ID, "result": {}}\n\n'

    def answer(method: str, body: bytes) -> Answer:
        if b'"result"' in body:
            answers.append(json.loads(body))
            return 202, {}, b""
        return replies(method, body, (200, EVENTS, events))

    async with open_odd_http_server(answer) as url, opened(McpServer("web", url=url)) as tools:
        assert await call(tools, "answer") is None

        async def is_answered() -> bool:
            return bool(answers)

        await until(is_answered)
    assert answers == [{"jsonrpc": "2.0", "id": 7, "result": {}}]


async def test_redirects_to_the_same_server_are_followed_a_few_times() -> None:
    redirected = 0

    def answer(method: str, body: bytes) -> Answer:
        nonlocal redirected
        if b"tools/call" in body:
            return 307, {"location": "/mcp/"}, b""
        redirected += 1
        return (307, {"location": "/mcp/"}, b"") if redirected % 2 else replies(method, body)

    async with open_odd_http_server(answer) as url, opened(McpServer("web", url=url)) as tools:
        assert "redirects to http://127.0.0.1" in await failure(tools, "answer")


async def test_certificate_that_is_not_accepted_and_unknown_names_are_explained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # it can also be another library's context
    nowhere = McpServer("nowhere", url="https://no.such.host.invalid/mcp")
    async with open_odd_http_server(replies, context) as url, opened(McpServer("web", url=url), nowhere):

        async def is_logged() -> bool:
            return "its certificate is not accepted" in caplog.text and "its name cannot be resolved" in caplog.text

        await until(is_logged)


async def test_stream_of_notifications_that_fails_is_opened_again_and_its_end_ends_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    streams: list[Answer] = [
        (200, EVENTS, b"data: no message\n\n"),
        (200, EVENTS, b"data: " + b"x" * 200_000),
        (404, {}, b""),
    ]
    sessions = 0

    def answer(method: str, body: bytes) -> Answer:
        nonlocal sessions
        sessions += b'"initialize"' in body
        if method == "GET" and streams:
            return streams.pop(0)
        return replies(method, body)

    async with open_odd_http_server(answer) as url:
        async with open_mcp_tools([McpServer("web", url=url)], max_message_size=100_000):

            async def is_opened_again() -> bool:
                return sessions == 2

            with trio.fail_after(SECONDS):
                await until(is_opened_again)
    assert "ignored an event: it is not JSON" in caplog.text


async def test_headers_may_come_from_a_function_that_is_called_in_a_thread() -> None:
    threads: list[str] = []

    def headers() -> list[tuple[str, str]]:
        threads.append(threading.current_thread().name)
        return [("X-Team", "blue")]

    async with open_http_server() as server, opened(McpServer("web", url=server.url, headers=headers)) as tools:
        assert await named(tools, "header").call({"name": "x-team"}) == {"result": "blue"}
    assert threads
    assert threading.current_thread().name not in threads


async def test_token_that_takes_too_long_to_read_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_http, "_TIMEOUT", 0.05)
    release = threading.Event()

    def token() -> str:
        release.wait(SECONDS)
        return "t0ken"

    with pytest.raises(ConfigError, match="its token or headers could not be read within"):
        async with open_mcp_tools([McpServer("web", url="http://127.0.0.1:9", token=token)]):
            raise AssertionError
    release.set()


@pytest.mark.parametrize("error", [httpx2.ConnectTimeout("slow"), httpx2.ConnectError("odd")])
def test_reason_of_a_failed_connect_is_always_given(error: httpx2.TransportError) -> None:
    assert mcp_http._reason(error) in {"no answer within 30 s", "ConnectError"}
