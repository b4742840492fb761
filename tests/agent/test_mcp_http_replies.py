"""What an MCP server over HTTP replies badly costs as little as possible. A server with given replies, on the real clock."""

from __future__ import annotations

import json
import ssl
from functools import partial
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio
import trustme
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification

from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio.agent import McpServer, mcp_http, open_mcp_tools
from galaxy_trio.agent.mcp_events import read_body
from galaxy_trio.agent.mcp_log import ServerLog
from galaxy_trio.agent.mcp_server import Limits
from galaxy_trio.agent.mcp_streams import SessionEvents
from tests.agent.support.http_servers import EVENTS, JSON, Answer, open_odd_http_server, replies
from tests.agent.test_mcp import call, failure, opened, until
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.programs


async def test_session_of_a_url_ends_with_the_block_within_its_limit() -> None:
    methods: list[str] = []

    def answer(method: str, body: bytes) -> Answer:
        methods.append(method)
        return replies(method, body)

    async with open_odd_http_server(answer) as url:
        async with opened(McpServer("web", url=url)):
            pass
    assert methods[-1] == "DELETE"


BROKEN: list[tuple[Answer, str]] = [
    ((200, JSON, b'{"jsonrpc": "2.0", "id": ID, "result": []}'), "its reply has neither a result nor an error"),
    ((200, JSON, b"not JSON"), "its reply is not a message of the protocol"),
    ((200, JSON, b'{"a": 1}'), "its reply is not a message of the protocol"),
    ((200, JSON, b'{"jsonrpc": "2.0", "id": ID, "error": "no"}'), "no"),
    ((200, JSON, b'\xef\xbb\xbf{"jsonrpc": "2.0", "id": ID, "error": "no"}'), "no"),
    ((200, EVENTS, b'\xef\xbb\xbfdata: {"jsonrpc": "2.0", "id": ID, "error": "no"}\n\n'), "no"),
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
    closed = trio.Event()

    def answer(method: str, body: bytes) -> Answer:
        message = json.loads(body or b"{}")
        if method == "CLOSED":
            closed.set()
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
        await closed.wait()
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


async def test_stream_of_notifications_that_cannot_be_opened_again_ends_the_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mcp_http, "_FIRST_DELAY", 0.01)
    gone = trio.Event()

    def answer(method: str, body: bytes) -> Answer:
        if method == "GET":
            gone.set()
            return 200, EVENTS, b""
        return replies(method, body)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with open_odd_http_server(answer) as url:
            task_status.started(url)
            await gone.wait()

    async def is_logged() -> bool:
        return "cannot connect to" in caplog.text

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve)
        async with open_mcp_tools([McpServer("web", url=url)]):
            with trio.fail_after(SECONDS):
                await gone.wait()
                await until(is_logged)


async def test_status_of_http_is_not_taken_for_a_server_without_tools(caplog: pytest.LogCaptureFixture) -> None:
    def answer(method: str, body: bytes) -> Answer:
        return (405, {}, b"") if b'"tools/list"' in body else replies(method, body)

    async with open_odd_http_server(answer) as url, opened(McpServer("web", url=url)):

        async def is_logged() -> bool:
            return "replied with HTTP status 405" in caplog.text

        await until(is_logged)


@pytest.mark.parametrize("error", [httpx2.ConnectTimeout("slow"), httpx2.ConnectError("odd")])
def test_reason_of_a_failed_connect_is_always_given(error: httpx2.TransportError) -> None:
    assert mcp_http._reason(error) in {"no answer within 30 s", "ConnectError"}


async def test_session_that_the_server_does_not_know_any_more_is_opened_again() -> None:
    sessions = 0

    def answer(method: str, body: bytes) -> Answer:
        nonlocal sessions
        sessions += b'"initialize"' in body
        return replies(method, body, (404, {}, b""))

    async with open_odd_http_server(answer) as url, opened(McpServer("web", url=url)) as tools:
        assert "its session has ended, as after a restart of the server" in await failure(tools, "answer")

        async def is_opened_again() -> bool:
            return sessions == 2

        await until(is_opened_again)


async def test_cancellation_of_a_request_that_has_its_reply_is_sent_and_ends_nothing() -> None:
    received: list[object] = []

    def answer(method: str, body: bytes) -> Answer:
        received.append(json.loads(body))
        return 202, {}, b""

    limits, log = Limits(1_000, MemoryBudget(1_000)), ServerLog("web")
    cancelled = JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params={"requestId": 5})
    async with open_odd_http_server(answer) as url:
        async with mcp_http.open_http(McpServer("web", url=url), limits, log, SessionEvents()) as (_, transport):
            await transport.send(SessionMessage(cancelled))
    assert received == [{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}]


async def test_stream_of_notifications_whose_server_is_gone_ends_the_session_without_any_other_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_http, "_FIRST_DELAY", 0.01)
    gone = trio.Event()

    def answer(method: str, _body: bytes) -> Answer:
        if method == "GET":
            gone.set()
            return 200, EVENTS, b""
        return 202, {}, b""

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with open_odd_http_server(answer) as url:
            task_status.started(url)
            await gone.wait()

    limits, log, events = Limits(1_000, MemoryBudget(1_000)), ServerLog("web"), SessionEvents()
    initialized = JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized")
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve)
            async with mcp_http.open_http(McpServer("web", url=url), limits, log, events) as (_, transport):
                await transport.send(SessionMessage(initialized))
                assert not await events.wait_list_changed()


class _Unfinished(httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"x" * 600
        await trio.sleep_forever()


async def test_unfinished_replies_of_one_server_count_together_until_they_are_dropped() -> None:
    budget, is_short = MemoryBudget(1_000), trio.Event()
    share = budget.open_share()
    share.on_shortage = is_short.set
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(read_body, httpx2.Response(200, stream=_Unfinished()), 1_000, share)
            await is_short.wait()
            nursery.cancel_scope.cancel()
    assert (share.held, budget.held) == (0, 0)


async def test_session_with_too_large_unfinished_replies_is_opened_again_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def answer(method: str, body: bytes) -> Answer:
        return replies(method, body, (200, EVENTS, b"data: " + b"x" * 5_000))

    with trio.fail_after(SECONDS):
        async with open_odd_http_server(answer) as url:
            async with open_mcp_tools([McpServer("web", url=url)], memory_limit=1_000) as tools:
                await failure(tools, "answer")

                async def is_logged() -> bool:
                    return "MCP server 'web': it was stopped because all MCP servers together sent" in caplog.text

                await until(is_logged)
