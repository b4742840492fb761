"""``galaxy-trio task logs`` and ``galaxy-trio task show``: a task's history."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from galaxy_trio._cli.task_history import history_rows
from galaxy_trio._cli.times import local_time
from tests.cli.support.command_line import Call, Outcome, call_process, caller
from tests.cli.support.daemon_process import run_daemon_process
from tests.cli.support.hostile import ID, Answer, open_fake_daemon

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.daemon

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
BARE = {"id": ID, "request": "x", "state": "running"}
WANTS: dict[str, Any] = {"device": "laptop", "os": None, "capabilities": []}


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    """The URL of a daemon."""
    yield from run_daemon_process()


@pytest.fixture
def call(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, with the address of the daemon in the environment."""
    run = caller(monkeypatch, capsys)
    monkeypatch.setenv("GALAXY_TRIO_DAEMON", address)
    return run


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def _entry(seconds: float, event: str, device: str | None = None) -> dict[str, str]:
    return {"time": _ago(seconds), "event": event, **({} if device is None else {"device": device})}


def _sentences(task: dict[str, Any], device: dict[str, Any] | None = None) -> list[str]:
    rows = history_rows(task, device)
    assert all(time == "now" or _TIME.fullmatch(time) for time, _ in rows)
    return [sentence for _, sentence in rows]


def test_logs_tell_what_happened_to_a_task(call: Call) -> None:
    task_id = call("task", "submit", "fail no paper", "--device", "d1").out.strip()
    call("task", "wait", task_id)
    accepted, sent, failed = call("task", "logs", task_id).out.splitlines()
    assert all(_TIME.match(line) for line in (accepted, sent, failed))
    assert accepted.endswith("  accepted")
    assert re.search(r"  sent to d1, after \d+ s in the queue$", sent)
    assert re.search(r"  failed after \d+ s: .*no paper", failed)
    again = call("task", "retry", task_id).out.strip()
    assert call("task", "logs", again).out.splitlines()[0].endswith(f"  accepted, to repeat task {task_id}")
    entries = json.loads(call("task", "logs", task_id, "--json").out)
    assert [entry["event"] for entry in entries] == ["accepted", "sent", "failed"]


def test_show_prints_every_field_of_a_task_and_its_history(call: Call) -> None:
    task_id = call("task", "submit", "fail no paper", "--device", "d1").out.strip()
    call("task", "wait", task_id)
    lines = call("task", "show", task_id).out.splitlines()
    shown = dict(line.split(None, 1) for line in lines[:-2])
    assert (shown["id"], shown["state"], shown["device"]) == (task_id, "failed", "d1")
    assert "no paper" in shown["error"]
    assert shown["history"].endswith(" accepted")
    assert " sent to d1" in lines[-2]
    assert json.loads(call("task", "show", task_id, "--json").out)["id"] == task_id
    task_id = call("task", "submit", "data", "--device", "d1").out.strip()
    call("task", "wait", task_id)
    assert 'result   {"é": [1, null]}\n' in call("task", "show", task_id).out


def test_running_and_queued_tasks_say_what_they_do_now(call: Call) -> None:
    first = call("task", "submit", "wait", "--device", "d2").out.strip()
    while "running on d2, for" not in call("task", "logs", first).out:
        pass
    second = call("task", "submit", "echo x", "--device", "d2").out.strip()
    assert re.search(r"now +waiting for \d+ s, for d2, which is busy\n", call("task", "logs", second).out)
    call("task", "cancel", second)
    assert re.search(r"  cancelled after \d+ s in the queue\n", call("task", "logs", second).out)
    call("task", "cancel", first)
    assert re.search(r"  cancelled after \d+ s\n", call("task", "logs", first).out)


@pytest.mark.parametrize("command", ["logs", "show"])
def test_unknown_task_is_refused(call: Call, command: str) -> None:
    assert call("task", command, "nothing").status == 5


def test_device_that_had_left_is_part_of_the_history() -> None:
    history = [_entry(99, "accepted"), _entry(90, "sent", "a"), _entry(80, "returned", "a"), _entry(60, "sent", "b")]
    assert _sentences({"state": "lost", "error": "gone", "history": [*history, _entry(50, "lost")]}) == [
        "accepted",
        "sent to a, after 9 s in the queue",
        "back in the queue: a had left before the task ran",
        "sent to b, after 20 s in the queue",
        "lost after 10 s: gone",
    ]
    waiting = {"state": "queued", "wants": WANTS, "history": history[:3]}
    assert _sentences(waiting)[-1] == "waiting for 80 s, for laptop"
    running = {"state": "running", "device": "b", "history": history}
    assert _sentences(running)[-1] == "running on b, for 60 s"


@pytest.mark.parametrize(
    ("wants", "device", "words"),
    [
        (WANTS, {"status": "disconnected", "problem": "refused"}, "laptop, which is disconnected: refused"),
        (WANTS, {"status": "busy", "problem": None}, "laptop, which is busy"),
        (WANTS, None, "laptop"),
        ({"device": None, "os": None, "capabilities": []}, None, "any device"),
        ({"device": None, "os": "linux", "capabilities": ["a", "b"]}, None, "any device with linux, a, b"),
        (None, None, "any device"),
        ({"capabilities": 5}, None, "any device"),
    ],
)
def test_waiting_task_says_for_which_device(wants: object, device: dict[str, Any] | None, words: str) -> None:
    [_, now] = _sentences({"state": "queued", "wants": wants, "history": [_entry(5, "accepted")]}, device)
    assert now == f"waiting for 5 s, for {words}"


async def test_device_that_is_not_there_any_more_leaves_the_rest_of_the_history() -> None:
    task = {"id": ID, "request": "x", "state": "queued", "wants": WANTS, "history": [_entry(5, "accepted")]}
    async with open_fake_daemon({f"/tasks/{ID}": Answer(task)}) as fake:
        outcome = await call_process("task", "logs", ID, "--url", fake.url)
    assert (outcome.status, outcome.err) == (0, "")
    assert "for laptop\n" in outcome.out


@pytest.mark.parametrize(
    "history", [None, [5], [{"time": 3, "event": None}], [{"time": "soon"}], [{"time": "2026-01-01"}]]
)
async def test_strange_history_is_no_traceback(history: object) -> None:
    async with open_fake_daemon({f"/tasks/{ID}": Answer({**BARE, "history": history})}) as fake:
        outcome = await call_process("task", "logs", ID, "--url", fake.url)
    assert outcome == Outcome(0, outcome.out, "")
    assert "now" in outcome.out


def test_text_that_gives_no_time_is_shown_as_it_is() -> None:
    assert (local_time("soon"), local_time(5)) == ("soon", "5")
