"""Servers that are no daemon, or one that has died, and addresses that cannot be reached: what the daemon's client says."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio._cli.daemon_client
from galaxy_trio import RequestTimeout
from galaxy_trio._cli.daemon_client import open_client
from galaxy_trio._cli.daemon_reading import DaemonEvent
from tests.cli.support.command_line import Call, Outcome, call_process, caller, is_one_sentence
from tests.cli.support.hostile import ID, Answer, open_fake_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.daemon

SECRET = "a-secret-of-the-daemon"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""
    return caller(monkeypatch, capsys)


# The HTTP client leaves a Unix socket that could not be connected to the garbage collector. On Python 3.12 and newer it is part of a
# reference cycle. It is collected in this test, because its warning would fail a later one.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "unix:/nowhere/at/all"])
def test_refused_connection_to_the_daemon_says_what_to_do(call: Call, url: str) -> None:
    outcome = call("task", "list", "--url", url)
    assert outcome.status == 3
    assert f"cannot reach a daemon at {url}: " in outcome.err
    assert is_one_sentence(outcome)
    gc.collect()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1",
        "127.0.0.1:8765",
        "http://[",
        "http://localhost:99999",
        "unix:",
        "unix:/x?token=t",
        "http://a\x01b",
    ],
)
def test_invalid_address_of_the_daemon_is_a_usage_error(call: Call, url: str) -> None:
    outcome = call("task", "list", "--url", url)
    assert outcome.status == 2
    assert "is not a daemon's address: use http://HOST:PORT or unix:PATH" in outcome.err
    assert is_one_sentence(outcome)


async def test_other_http_server_is_reported_as_not_a_daemon() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        outcome = await call_process("task", "list", "--url", url)
        nursery.cancel_scope.cancel()
    assert outcome == Outcome(5, "", f"error: the server at {url} is not a galaxy-trio daemon\n")


async def test_event_stream_of_a_daemon_that_has_died_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio._cli.daemon_client, "_RESPONSE_TIMEOUT", 0.1)
    received: list[DaemonEvent] = []

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: a\ndata: {}\n\n")
        await trio.sleep_forever()

    def read(url: str) -> None:
        with open_client(url, None, 0) as client:
            received.extend(client.events())

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with trio.fail_after(SECONDS), pytest.raises(RequestTimeout):
            await trio.to_thread.run_sync(read, url)
        nursery.cancel_scope.cancel()
    assert received == [DaemonEvent("a", {})]


@pytest.mark.parametrize("command", [("task", "list"), ("daemon",)])
async def test_without_the_extra_the_command_says_what_to_install(command: tuple[str, ...]) -> None:
    program = (
        "import sys; sys.modules.update(httpx2=None, sqlalchemy=None); import runpy;"
        "runpy.run_module('galaxy_trio', run_name='__main__')"
    )
    outcome = await call_process(*command, python=("-c", program))
    assert outcome.status == 2
    assert 'pip install "galaxy_trio[daemon]"' in outcome.err
    assert is_one_sentence(outcome)


async def test_event_that_is_not_json_is_one_sentence() -> None:
    async with open_fake_daemon({"/events": Answer(b"event: task\ndata: {no\n\n")}) as fake:
        outcome = await call_process("events", "--json", "--url", fake.url)
    assert outcome == Outcome(3, "", f"error: the daemon at {fake.url} sent an event that is not JSON\n")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(b"no JSON"), 200),
        (Answer({"why": SECRET}, "500 Internal Server Error"), 500),
        (Answer(b"", "502 X"), 502),
    ],
)
async def test_answer_of_something_else_than_a_daemon_is_one_sentence(answer: Answer, status: int) -> None:
    async with open_fake_daemon({"/tasks": answer}) as fake:
        outcome = await call_process("task", "list", "--url", fake.url)
    assert outcome == Outcome(5, "", f"error: the server at {fake.url} is not a galaxy-trio daemon (status {status})\n")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("list",), {"tasks": 3}),
        (("list",), {"id": ID, "state": "queued", "request": "look"}),
        (("submit", "x"), {"tasks": []}),
        (("list",), {"tasks": [None]}),
        (("list",), {"tasks": [{"id": ID}]}),
        (("list",), b"[" * 200_000),
        (("show", ID), {"id": 1, "state": "queued", "request": "look"}),
        (("wait", ID), {}),
        (("submit", "x"), {"state": "queued"}),
    ],
)
async def test_answer_that_is_no_task_is_one_sentence(arguments: tuple[str, ...], answer: object) -> None:
    async with open_fake_daemon({"/tasks": Answer(answer), f"/tasks/{ID}": Answer(answer)}) as fake:
        outcome = await call_process("task", *arguments, "--url", fake.url)
    assert outcome.status == 5
    assert outcome.err.startswith(f"error: the server at {fake.url} is not a galaxy-trio daemon")
    assert is_one_sentence(outcome)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("list",), {"graphs": 3}),
        (("list",), {"id": ID, "state": "running", "created": "now"}),
        (("submit", "PLAN"), {"graphs": []}),
        (("cancel", ID), {"graphs": []}),
    ],
)
async def test_answer_that_is_no_graph_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], answer: object
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"nodes": []}')
    words = [str(plan) if word == "PLAN" else word for word in arguments]
    async with open_fake_daemon({"/graphs": Answer(answer), f"/graphs/{ID}": Answer(answer)}) as fake:
        outcome = await call_process("graph", *words, "--url", fake.url)
    assert outcome == Outcome(5, "", f"error: the server at {fake.url} is not a galaxy-trio daemon\n")


@pytest.mark.parametrize(
    "problems", [["nodes[0].id: x\x1b[31m", "edges[1]: y"], None], ids=["a list", "another version"]
)
async def test_problems_that_only_the_daemon_finds_are_printed_each(tmp_path: Path, problems: list[str] | None) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"nodes": []}')
    answer = Answer({"error": "x; y", "problems": problems}, "422 Unprocessable Content")
    async with open_fake_daemon({"/graphs": answer}) as fake:
        outcome = await call_process("graph", "submit", str(plan), "--url", fake.url)
    if problems is None:
        assert outcome == Outcome(5, "", "error: the daemon refused: x; y\n")
    else:
        assert outcome.status == 2
        assert outcome.err.splitlines() == [
            "nodes[0].id: x\\u001b[31m", "edges[1]: y", f"error: {plan}: 2 problems",
        ]  # fmt: skip


async def test_daemon_that_answers_a_wait_early_is_not_asked_again_immediately() -> None:
    task = {"id": ID, "state": "of a newer version", "request": "look"}
    async with open_fake_daemon({f"/tasks/{ID}": Answer(task)}) as fake:
        outcome = await call_process("task", "wait", ID, "--timeout", "2", "--url", fake.url)
    assert (outcome.status, outcome.err) == (4, f"error: task {ID} is still of a newer version after 2 s\n")
    assert len(fake.requests) <= 4
