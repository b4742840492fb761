"""Requests are answered by the application of the daemon's current life, and refused while there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio
import trio.testing
from starlette.responses import PlainTextResponse

from galaxy_trio.daemon.web.current_app import CurrentApp

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send
    from trio.testing import MockClock


def client_of(app: CurrentApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://daemon.test")


class Slow:
    """An application that answers when it is let go."""

    def __init__(self, *, begins: bool = False) -> None:
        self.begins = begins
        self.arrived = trio.Event()
        self.go_on = trio.Event()
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        self.arrived.set()
        await self.go_on.wait()
        await PlainTextResponse("done")(scope, receive, send)


async def test_requests_are_refused_while_there_is_no_application() -> None:
    app = CurrentApp("the daemon is starting")
    async with client_of(app) as client:
        refusal = await client.get("/tasks")
        assert (refusal.status_code, refusal.json()) == (503, {"error": "the daemon is starting"})
        assert refusal.headers["Retry-After"] == "1"
        async with app.answering(PlainTextResponse("one")):
            assert (await client.get("/tasks")).text == "one"
        app.reason = "the database is away"
        assert (await client.get("/tasks")).json() == {"error": "the database is away"}
        async with app.answering(PlainTextResponse("two")):
            assert (await client.get("/tasks")).text == "two"


async def test_pending_requests_may_end_when_the_application_is_closed(autojump_clock: MockClock) -> None:
    app, slow = CurrentApp("between two lives"), Slow()
    answers: list[httpx2.Response] = []

    async def ask() -> None:
        answers.append(await client.get("/tasks"))

    async with client_of(app) as client, trio.open_nursery() as nursery:
        async with app.answering(slow):
            nursery.start_soon(ask)
            await slow.arrived.wait()
            nursery.start_soon(trio.sleep, 1)
            slow.go_on.set()
        assert [answer.text for answer in answers] == ["done"]


async def test_requests_that_do_not_end_are_refused_after_3_s(autojump_clock: MockClock) -> None:
    app, slow = CurrentApp("between two lives"), Slow()
    async with client_of(app) as client, trio.open_nursery() as nursery:
        answers: list[httpx2.Response] = []

        async def ask() -> None:
            answers.append(await client.get("/tasks"))

        async with app.answering(slow):
            nursery.start_soon(ask)
            await slow.arrived.wait()
        assert trio.current_time() == 3
        await trio.testing.wait_all_tasks_blocked()
        assert [answer.status_code for answer in answers] == [503]


@pytest.mark.parametrize("begins", [False, True])
async def test_a_failure_of_the_daemon_ends_its_requests_in_the_same_step(begins: bool) -> None:
    app, slow = CurrentApp("between two lives"), Slow(begins=begins)
    sent: list[Message] = []

    async def receive() -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    async with trio.open_nursery() as nursery:

        async def live() -> None:
            async with app.answering(slow):
                nursery.start_soon(app, scope, receive, send)
                await slow.arrived.wait()
                raise RuntimeError("the lease was lost")

        with pytest.raises(RuntimeError, match="the lease was lost"):
            await live()
    if begins:
        # It is not complete, so that the server closes the connection.
        assert [message.get("more_body") for message in sent] == [None, True]
    else:
        assert sent[0]["status"] == 503


async def test_a_response_that_is_being_sent_is_sent_as_a_whole(autojump_clock: MockClock) -> None:
    app, sending = CurrentApp("between two lives"), trio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sending.set()
        await trio.sleep(1)
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    async with trio.open_nursery() as nursery:

        async def live() -> None:
            async with app.answering(PlainTextResponse("done")):
                nursery.start_soon(app, scope, receive, send)
                await sending.wait()
                raise RuntimeError("the lease was lost")

        with pytest.raises(RuntimeError, match="the lease was lost"):
            await live()
    # The server would keep its state of a response that was cut, and answer no other request on the connection.
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
