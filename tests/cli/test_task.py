"""``galaxy-trio task``: the daemon's client."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio._cli.task_end
from tests.cli.support.command_line import (
    Call,
    Outcome,
    call_process,
    caller,
    command_of,
    environment,
    is_one_sentence,
)
from tests.cli.support.daemon_process import run_daemon_process
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


pytestmark = pytest.mark.daemon

SECRET = "a-secret-of-the-daemon"


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    """The URL of a daemon."""
    yield from run_daemon_process("")


@pytest.fixture(scope="module")
def guarded() -> Generator[str]:
    """The URL of a daemon that requires a token."""
    yield from run_daemon_process(SECRET)


@pytest.fixture
def call(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, with the address of the daemon in the environment."""
    run = caller(monkeypatch, capsys)
    monkeypatch.setenv("GALAXY_TRIO_DAEMON", address)
    return run


def _submit(call: Call, *arguments: str) -> str:
    outcome = call("task", "submit", *arguments)
    assert (outcome.status, outcome.err) == (0, "")
    return outcome.out.strip()


def test_submit_prints_only_the_id(call: Call) -> None:
    outcome = call("task", "submit", "echo hello", "--device", "d1")
    assert (outcome.status, outcome.err) == (0, "")
    assert len(outcome.out.strip()) == 32
    assert call("task", "wait", outcome.out.strip()) == Outcome(0, '{\n  "device": "d1",\n  "echo": "hello"\n}\n', "")


def test_submit_can_wait_for_the_result(call: Call) -> None:
    assert call("task", "submit", "data", "--device", "d1", "--wait") == Outcome(
        0, '{\n  "é": [\n    1,\n    null\n  ]\n}\n', ""
    )


def test_submit_without_a_device_selects_a_suitable_one(call: Call) -> None:
    task = json.loads(call("task", "submit", "echo x", "--os", "linux", "--wait", "--json").out)
    assert task["wants"] == {"device": None, "os": "linux", "capabilities": []}
    assert task["device"] in ("d1", "d2")


def test_control_characters_in_a_result_are_escaped(call: Call) -> None:
    assert call("task", "submit", "evil", "--device", "d1", "--wait").out == "\\u001b]0;title\\u0007\\u202e\n"


def test_large_result_is_fetched_from_its_url(call: Call) -> None:
    task_id = _submit(call, "large", "--device", "d1")
    assert call("task", "wait", task_id).out == "x" * 2_000_000 + "\n"
    assert f"result   2000002 bytes: galaxy-trio task wait {task_id}\n" in call("task", "show", task_id).out


def test_failed_task_exits_with_1_and_its_reason(call: Call) -> None:
    outcome = call("task", "submit", "fail no paper", "--device", "d1", "--wait")
    assert outcome.status == 1
    assert "no paper" in outcome.err
    assert is_one_sentence(outcome)
    outcome = call("task", "submit", "fail", "--device", "d1", "--wait", "--json")
    assert (outcome.status, json.loads(outcome.out)["state"]) == (1, "failed")


def test_long_reason_is_cut_and_show_prints_it_whole(call: Call) -> None:
    reason = "no paper " * 1_000
    outcome = call("task", "submit", f"fail {reason}end", "--device", "d1", "--wait")
    assert outcome.status == 1
    assert is_one_sentence(outcome)
    task_id = outcome.err.split()[2]
    assert outcome.err.count("no paper") > 50
    assert outcome.err.endswith(f" characters: galaxy-trio task show {task_id})\n")
    assert f"{reason}end" in call("task", "show", task_id).out


def test_long_request_is_cut_in_lists_and_show_prints_it_whole(call: Call) -> None:
    request = "echo " + "long " * 1_000 + "end"
    submitted = json.loads(call("task", "submit", request, "--device", "d1", "--json").out)
    listed = json.loads(call("task", "list", "--limit", "1", "--json").out)[0]
    for task in (submitted, listed):
        assert (task["id"], task["request"], task["request_size"]) == (submitted["id"], request[:1_024], len(request))
    assert f"{submitted['id']}  " in call("task", "list").out
    assert f"  {request[:16]}" in call("task", "list").out
    assert request in call("task", "show", submitted["id"]).out
    assert json.loads(call("task", "wait", submitted["id"], "--json").out)["request"] == request


def test_wait_times_out_and_the_task_continues(call: Call) -> None:
    task_id = _submit(call, "wait", "--device", "d2")
    outcome = call("task", "wait", task_id, "--timeout", "0.05")
    assert outcome.status == 4
    assert "is still running after 0.05 s" in outcome.err or "is still queued after 0.05 s" in outcome.err
    assert call("task", "cancel", task_id) == Outcome(0, "cancelled\n", "")
    outcome = call("task", "wait", task_id)
    assert (outcome.status, outcome.out) == (1, "")
    assert "was cancelled: no reason was given" in outcome.err


def test_wait_polls_until_the_task_has_ended(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio._cli.task_end, "LONGEST_WAIT", 0.02)
    task_id = _submit(call, "wait", "--device", "d2", "--timeout", "0.2")
    outcome = call("task", "wait", task_id)
    assert outcome.status == 1
    assert "0.2 s" in outcome.err


def test_same_idempotency_key_returns_the_same_task(call: Call) -> None:
    arguments = ("echo x", "--device", "d1", "--idempotency-key", "same")
    assert _submit(call, *arguments) == _submit(call, *arguments)
    outcome = call("task", "submit", "echo y", "--device", "d1", "--idempotency-key", "same")
    assert outcome.status == 5
    assert "the idempotency key 'same'" in outcome.err


async def test_wait_shows_the_elapsed_time_on_a_terminal_and_only_the_result_on_stdout(address: str) -> None:
    submitted = await call_process("task", "submit", "hold terminal", "--device", "d2", "--url", address)
    task_id = submitted.out.strip()
    terminal, its_end = os.openpty()
    with trio.fail_after(SECONDS):
        async with trio.lowlevel.FdStream(terminal) as screen, trio.open_nursery() as nursery:
            command = [*command_of("task", "wait", task_id, "--url", address)]
            outcomes: list[int | None] = []

            async def wait() -> None:
                done = await trio.run_process(
                    command, check=False, capture_stdout=True, stderr=its_end, env=environment()
                )
                assert done.stdout == b""
                outcomes.append(done.returncode)

            nursery.start_soon(wait)
            shown = b""
            while f"task {task_id}".encode() not in shown or b"0:00:0" not in shown:
                shown += await screen.receive_some()
            await call_process("task", "cancel", task_id, "--url", address)
    os.close(its_end)
    assert outcomes == [1]


def test_list_shows_the_newest_task_first(call: Call) -> None:
    task_id = _submit(call, "echo " + "long " * 20, "--device", "d1")
    call("task", "wait", task_id)
    first = call("task", "list", "--limit", "1")
    assert first.out.splitlines() == [
        "task                              state      device  request",
        f"{task_id}  completed  d1      echo long long long long l…",
    ]
    tasks = json.loads(call("task", "list", "--state", "completed", "--device", "d1", "--json").out)
    assert tasks[0]["id"] == task_id
    assert call("task", "list", "--device", "nothing") == Outcome(0, "no tasks\n", "")


def test_list_and_show_have_the_priority_of_a_task(call: Call) -> None:
    task_id = _submit(call, "echo urgent", "--device", "d1", "--priority", "-5")
    call("task", "wait", task_id)
    assert call("task", "list", "--limit", "1").out.splitlines() == [
        "task                              state      priority  device  request",
        f"{task_id}  completed        -5  d1      echo urgent",
    ]
    assert "\npriority  -5\n" in call("task", "show", task_id).out


def test_retry_creates_a_new_task(call: Call) -> None:
    task_id = _submit(call, "echo once more", "--device", "d1")
    call("task", "wait", task_id)
    again = call("task", "retry", task_id)
    assert again.status == 0
    assert again.out.strip() != task_id
    assert json.loads(call("task", "wait", again.out.strip(), "--json").out)["retry_of"] == task_id


@pytest.mark.parametrize("command", ["show", "wait", "cancel", "retry"])
def test_unknown_task_is_refused(call: Call, command: str) -> None:
    outcome = call("task", command, "../nothing")
    assert outcome.status == 5
    assert "the daemon refused" in outcome.err
    assert is_one_sentence(outcome)


def test_daemons_token_is_required_and_never_shown(
    call: Call, guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = call("task", "list", "--url", guarded)
    assert outcome.status == 5
    assert "a token is needed" in outcome.err
    assert "GALAXY_TRIO_DAEMON_TOKEN" in outcome.err
    monkeypatch.setenv("GALAXY_TRIO_DAEMON_TOKEN", "wrong-token")
    for command in (("task", "list"), ("events",)):
        outcome = call(*command, "--url", guarded)
        assert (outcome.status, "wrong-token" in outcome.err) == (5, False)
        assert "the token is wrong" in outcome.err
    (tmp_path / "token").write_text(SECRET)
    assert call("task", "list", "--url", guarded, "--token-file", str(tmp_path / "token")).status == 0
    monkeypatch.setenv("GALAXY_TRIO_DAEMON_TOKEN", f" {SECRET}\nanother\n")
    assert call("task", "list", "--url", guarded).status == 0


@pytest.mark.parametrize("token", [f"{SECRET} {SECRET}", f"{SECRET}\u00e9", f"{SECRET}\udcff", f"{SECRET}\x01"])
def test_token_that_cannot_be_sent_is_a_usage_error_and_not_shown(
    call: Call, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("GALAXY_TRIO_DAEMON_TOKEN", token)
    outcome = call("task", "list")
    assert (outcome.status, outcome.out, SECRET in outcome.err) == (2, "", False)
    assert "GALAXY_TRIO_DAEMON_TOKEN" in outcome.err
    assert is_one_sentence(outcome)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "x", "--timeout", "inf"], "is not a finite number of seconds above 0"),
        (["submit", "x", "--timeout", "soon"], "is not a finite number of seconds above 0"),
        (["submit", "x", "--priority", "101"], "'101' is not a whole number from -100 to 100"),
        (["submit", "x", "--priority", "--5"], "'--5' is not a whole number from -100 to 100"),
        (["submit", "\udcff"], "not valid UTF-8"),
        (["submit", "x", "--device", "\udcff"], "not valid UTF-8"),
        (["submit", "x", "--os", "\udcff"], "not valid UTF-8"),
        (["submit", "x", "--capability", "\udcff"], "not valid UTF-8"),
        (["submit", "x", "--idempotency-key", "\udcff"], "not valid UTF-8"),
        (["list", "--device", "\udcff"], "not valid UTF-8"),
        (["list", "--url", "http://\udcff"], "not valid UTF-8"),
        (["list", "--state", "done"], "'queued', 'running', 'completed', 'failed', 'cancelled', 'lost'"),
    ],
)
def test_invalid_option_is_a_usage_error(call: Call, arguments: list[str], words: str) -> None:
    outcome = call("task", *arguments)
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert words in outcome.err


def test_wait_follows_the_attempts_of_a_task_with_retries(call: Call) -> None:
    outcome = call("task", "submit", "fail", "--device", "d1", "--retries", "2", "--backoff", "0", "--wait", "--json")
    last = json.loads(outcome.out)
    assert (outcome.status, last["state"]) == (1, "failed")
    before = json.loads(call("task", "show", last["retry_of"], "--json").out)
    first = json.loads(call("task", "show", before["retry_of"], "--json").out)
    assert (first["retry_of"], first["id"]) == (None, first["graph"])
    assert json.loads(call("task", "wait", first["id"], "--json").out)["id"] == last["id"]
    shown = call("task", "show", last["id"]).out
    assert f"retry_of  {before['id']}\n" in shown
    assert f"graph     {first['id']}\n" in shown


def test_wait_for_an_attempt_that_does_not_come_in_time_says_so(call: Call) -> None:
    task_id = _submit(call, "fail", "--device", "d1", "--retries", "1", "--backoff", "300")
    outcome = call("task", "wait", task_id, "--timeout", "0.05")
    assert outcome.status == 4
    assert "is still waiting for its next attempt after 0.05 s" in outcome.err


def test_backoff_without_retries_is_refused(call: Call) -> None:
    outcome = call("task", "submit", "echo", "--backoff", "1", "--retry-lost")
    assert (outcome.status, is_one_sentence(outcome)) == (5, True)
    assert "backoff: needs retries" in outcome.err
    outcome = call("task", "submit", "echo", "--retries", "1", "--backoff", "-1")
    assert (outcome.status, is_one_sentence(outcome)) == (2, True)
