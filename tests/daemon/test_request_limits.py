"""The size, the form and the protocol of requests, over real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

import galaxy_trio.daemon.web.security
from galaxy_trio.daemon.web.security import MAX_BODY, MAX_GRAPH_BODY, Security
from tests.daemon.support.http import TOKEN, echo, open_http, parse
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from tests.daemon.support.http import Http

pytestmark = pytest.mark.daemon

JSON = ("Content-Type", "application/json")


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


async def test_graph_may_be_larger_than_other_bodies() -> None:
    async with open_http() as http:
        for method, path in (("POST", "/graphs"), ("PATCH", "/graphs/echo")):
            largest = await http.ask(path, JSON, method=method, body=b" " * MAX_GRAPH_BODY)
            assert largest.status == 200
        # To cancel or retry a node takes no body.
        too_large = ("Content-Length", str(MAX_BODY + 1))
        assert (await http.ask("/graphs/echo", JSON, too_large, method="POST")).status == 413
        answer = await http.ask("/graphs", JSON, ("Content-Length", str(MAX_GRAPH_BODY + 1)), method="POST")
        assert (answer.status, answer.error) == (413, f"the request's body is larger than {MAX_GRAPH_BODY} bytes")


async def test_two_large_bodies_are_in_memory_together_and_another_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    running, release = trio.Semaphore(0), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        running.release()
        await release.wait()
        await Response()(scope, receive, send)

    async def post(http: Http, size: int, statuses: list[int]) -> None:
        statuses.append((await http.ask("/graphs", JSON, method="POST", body=b" " * size)).status)

    statuses: list[int] = []
    async with open_http(app) as http, trio.open_nursery() as nursery:
        for size in (MAX_BODY + 1, MAX_BODY + 1, MAX_BODY):
            nursery.start_soon(post, http, size, statuses)
        with trio.fail_after(SECONDS):
            for _ in range(3):
                await running.acquire()
            monkeypatch.setattr(galaxy_trio.daemon.web.security, "_BODY_TIMEOUT", 0.05)
            await post(http, MAX_BODY + 1, statuses)
        assert statuses == [408]
        release.set()
    assert statuses == [408, 200, 200, 200]


async def test_chunked_body_is_refused_as_soon_as_it_is_too_large() -> None:
    head = (
        f"POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    )
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    async with open_http() as http:
        received = await http.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *[piece] * 17)
        assert parse(received).status == 413


async def test_body_that_does_not_arrive_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.security, "_BODY_TIMEOUT", 0.05)
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
        return await echo(request)

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
