"""``galaxy-trio events``: a readable line for each event, or JSON."""

from __future__ import annotations

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.support.command_line import call_process, open_process
from tests.cli.support.daemon_process import run_daemon_process
from tests.cli.support.hostile import Answer, call_on_terminal, open_fake_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.daemon

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_TASK = {"id": "1", "request": "List /tmp", "device": "laptop", "error": None, "started": _NOW.isoformat()}
_ENDED = (_NOW + timedelta(seconds=12)).isoformat()


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    """The URL of a daemon."""
    yield from run_daemon_process()


def _stream(*events: tuple[str, object]) -> dict[str, Answer]:
    body = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events)
    return {"/events": Answer(body.encode())}


@pytest.mark.parametrize(
    ("form", "words"), [((), " completed on d1 after "), (("--json",), '"state": "completed"')], ids=["text", "json"]
)
async def test_events_are_printed_until_ctrl_c(address: str, form: tuple[str, ...], words: str) -> None:
    async with open_process("events", "--url", address, *form) as process:
        # The stream is open when the first event is printed.
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:

                async def submit() -> None:
                    while True:
                        await call_process("task", "submit", "echo x", "--device", "d1", "--url", address)

                nursery.start_soon(submit)
                output = await process.wait_for_output(words)
                nursery.cancel_scope.cancel()
        if form:
            assert all(json.loads(line)["event"] for line in output.splitlines()[:-1])
        else:
            assert all(re.match(r"\d\d:\d\d:\d\d (task|device) \S+", line) for line in output.splitlines()[:-1])
        process.send_signal(signal.SIGINT)
        assert (await process.end()).status == 130


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [
        ("task", {**_TASK, "state": "queued", "device": None}, "task 1 queued: List /tmp"),
        ("task", {**_TASK, "state": "running"}, "task 1 running on laptop"),
        ("task", {**_TASK, "state": "completed", "ended": _ENDED}, "task 1 completed on laptop after 12 s"),
        ("task", {**_TASK, "state": "failed", "ended": _ENDED, "error": "no\npaper"}, "task 1 failed on laptop after 12 s: no paper"),
        ("task", {**_TASK, "state": "cancelled", "device": None, "started": None}, "task 1 cancelled"),
        ("status", {"device_id": "laptop", "status": "busy"}, "device laptop is busy"),
        ("device", {"device_id": "laptop", "what": "connected"}, "device laptop: connected"),
        ("device", {"device_id": "laptop", "what": "information"}, "device laptop: new information about it"),
        ("device", {"device_id": "a", "what": "failed", "problem": "x" * 500}, f"device a: failed: {'x' * 200}…"),
        ("device", {"device_id": "a", "what": "disconnected"}, "device a: disconnected: no reason was given"),
        (
            "device",
            {"device_id": "a", "what": "needs attention", "problem": "HTTP 403", "next_try": "2020-01-01T00:00:00+00:00"},
            "device a: needs attention: HTTP 403 (retry in 0 s)",
        ),
        ("reset", {}, "some events are missing: the daemon no longer had them"),
        ("task", {"id": 1}, 'task {"id": 1}'),
        ("new", ["ö", 1], 'new ["ö", 1]'),
    ],
)  # fmt: skip
async def test_each_event_is_a_line(kind: str, data: object, line: str) -> None:
    async with open_fake_daemon(_stream((kind, data))) as fake:
        outcome = await call_process("events", "--url", fake.url)
    assert re.fullmatch(r"\d\d:\d\d:\d\d (.*)\n", outcome.out)
    assert outcome.out[9:-1] == line
    assert outcome.err == f"error: the daemon at {fake.url} closed the connection\n"


async def test_device_that_is_away_has_one_line_with_the_reason() -> None:
    away = {"device_id": "a", "what": "disconnected", "problem": "HTTP 403"}
    events = ("status", {"device_id": "a", "status": "disconnected"}), ("device", away)
    async with open_fake_daemon(_stream(*events)) as fake:
        outcome = await call_process("events", "--url", fake.url)
    assert [line[9:] for line in outcome.out.splitlines()] == ["device a: disconnected: HTTP 403"]


async def test_path_of_the_daemons_url_is_not_in_the_error_at_the_end() -> None:
    [answer] = _stream(("reset", {})).values()
    async with open_fake_daemon({"/secret/events": answer}) as fake:
        outcome = await call_process("events", "--url", f"{fake.url}/secret")
    assert outcome.err == f"error: the daemon at {fake.url} closed the connection\n"


async def test_long_event_is_wrapped_at_words_on_a_terminal_which_says_what_it_waits_for() -> None:
    error = "paper " * 30
    async with open_fake_daemon(_stream(("task", {**_TASK, "state": "failed", "error": error}))) as fake:
        shown = await call_on_terminal("events", "--url", fake.url)
    first, *lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert first == "waiting for events; Ctrl-C ends this"
    assert sum(line.count("paper") for line in lines) == 30
    assert all(re.match(r"\d\d:\d\d:\d\d task 1 failed| {9}paper", line) for line in lines[:-1])


async def test_event_that_is_not_json_is_one_sentence() -> None:
    async with open_fake_daemon({"/events": Answer(b"event: task\ndata: {\n\n")}) as fake:
        outcome = await call_process("events", "--url", fake.url)
    assert (outcome.status, outcome.err) == (3, f"error: the daemon at {fake.url} sent an event that is not JSON\n")
