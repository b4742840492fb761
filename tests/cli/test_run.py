"""``galaxy-trio run``: results, failed tasks, and the spinner."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import trio

from galaxy_trio._cli.destination import Destination
from galaxy_trio._cli.main import info, run
from tests.cli.support.command_line import (
    DEVICE,
    TOKEN,
    Call,
    Outcome,
    environment,
    is_one_sentence,
)
from tests.cli.support.world import EVIL, INFO, open_world
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


EVIL_ESCAPED = "\\u001b]0;title\\u0007 [red]rot[/red] 😀\r\nback\\u000dspace\\u202e end\n"


def test_run_prints_a_text_result_unchanged(call: Call, url: str) -> None:
    assert call("run", url, DEVICE, "say") == Outcome(0, "one\ntwo\n", "")


def test_run_prints_other_results_as_indented_json(call: Call, url: str) -> None:
    assert call("run", url, DEVICE, "x") == Outcome(0, '{\n  "echo": "x",\n  "ö": [\n    1\n  ]\n}\n', "")


def test_run_escapes_control_characters_and_interprets_no_markup(call: Call, url: str) -> None:
    assert call("run", url, DEVICE, "evil") == Outcome(0, EVIL_ESCAPED, "")


def test_run_with_json_prints_one_object_with_the_result_unchanged(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "evil", "--json")
    assert (outcome.status, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    assert outcome.out.rstrip("\n").isprintable()
    result = json.loads(outcome.out)
    assert result.pop("task_id")
    assert result == {"device_id": DEVICE, "status": "completed", "result": EVIL, "error": None}


def test_failed_task_prints_one_sentence_and_exits_with_1(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "fail")
    assert (outcome.status, outcome.out) == (1, "")
    assert is_one_sentence(outcome)
    assert outcome.err.endswith("failed on device 'linux_agent_1': it broke on two \\u001b[31mlines [bold]\n")


def test_failed_task_with_json_prints_its_object_and_exits_with_1(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "fail", "--json")
    assert outcome.status == 1
    assert is_one_sentence(outcome)
    result = json.loads(outcome.out)
    assert (result["status"], result["error"]) == ("failed", "it broke\non two \x1b[31mlines [bold]")


def test_result_of_a_failed_task_is_printed(call: Call, url: str) -> None:
    outcome = call("run", url, DEVICE, "explain")
    assert (outcome.status, json.loads(outcome.out)) == (1, {"why": "no screen"})
    assert outcome.err.endswith("it ended in its error state\n")


def test_long_error_from_a_server_is_truncated(call: Call, url: str) -> None:
    assert len(call("run", url, DEVICE, "complain").err) < 3_000


async def test_run_shows_the_elapsed_time_on_a_terminal_and_only_the_result_on_stdout() -> None:
    go = trio.Event()

    async def wait(task: ServerTask) -> object:
        await go.wait()
        return "done"

    terminal, its_end = os.openpty()
    with trio.fail_after(SECONDS):
        async with (
            open_world(wait) as server,
            trio.lowlevel.FdStream(terminal) as screen,
            trio.open_nursery() as nursery,
        ):
            command = [sys.executable, "-m", "galaxy_trio", "run", server.url, DEVICE, "x"]
            outputs: list[bytes] = []

            async def run() -> None:
                done = await trio.run_process(command, capture_stdout=True, stderr=its_end, env=environment())
                outputs.append(done.stdout)

            nursery.start_soon(run)
            shown = b""
            while b"running on linux_agent_1" not in shown or b"0:00:0" not in shown:
                shown += await screen.receive_some()
            go.set()
    os.close(its_end)
    assert outputs == [b"done\n"]


async def test_functions_behind_info_and_run_can_be_called_directly() -> None:
    async with open_world() as server:
        destination = Destination(server.url, DEVICE, TOKEN)
        with trio.fail_after(SECONDS):
            assert await info(destination, 10) == INFO
            assert (await run(destination, "say", 10)).unwrap() == "one\ntwo"
    assert TOKEN not in repr(destination)
