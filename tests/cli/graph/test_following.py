"""A graph in a daemon is followed: each step, restarts of the daemon, signals, closed pipes and terminals."""

from __future__ import annotations

import json
import os
import re
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.graph.support import write_plan
from tests.cli.graph.test_stored import lines_of
from tests.cli.support.command_line import Process, call_process, command_of, environment, open_process
from tests.cli.support.hostile import EVIL, harmful_characters
from tests.cli.support.pseudo_terminal import open_terminal
from tests.daemon.support.daemon import RunningDaemon, open_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = [pytest.mark.daemon, pytest.mark.programs]


def node(request: str, **more: object) -> dict[str, object]:
    return {"request": request, "device": "d1", **more}


async def submitted(daemon: RunningDaemon, plan: str) -> str:
    outcome = await call_process("graph", "submit", plan, "--url", daemon.url)
    assert outcome.err == ""
    return outcome.out.strip()


async def until_begun(daemon: RunningDaemon, request: str) -> None:
    """Wait until a device runs a request."""
    while request not in daemon.work.begun:  # noqa: ASYNC110  # the list has no event
        await trio.sleep(0.01)


async def ended(process: Process) -> tuple[int, list[str], str]:
    """Wait for the end of a command. Returns its status, its lines without times, and what it has written to stderr."""
    outcome = await process.end()
    return outcome.status, lines_of(outcome), outcome.err


async def test_each_step_is_a_line(tmp_path: Path) -> None:
    nodes = {
        "a": node("hold a"),
        "b": node("hold b", device="d2", retries=1, backoff=0.1),
        "c": node("echo"),
        "d": node("echo"),
        "e": node("echo"),
    }
    plan = write_plan(tmp_path, nodes, ("a", "c"), ("b", "d"), ("a", "e"))
    async with open_daemon(tmp_path, "d1", "d2", listen="127.0.0.1:0") as daemon:
        graph_id = await submitted(daemon, plan)
        await until_begun(daemon, "hold a")
        async with open_process("graph", "show", graph_id, "--wait", "--json", "--url", daemon.url) as process:
            # The stream is open when the graph is loaded for the second time, and nothing is missed from then on.
            await process.wait_for_output("GraphSnapshot")
            daemon.work.release("a")
            await process.wait_for_output('"node_id": "e", "state": "completed"')
            await daemon.ask("POST", f"/graphs/{graph_id}/nodes/b/cancel")
            status, lines, _ = await ended(process)
        assert status == 1
        events = [json.loads(line) for line in lines[2:]]
        seen = [(event["event"], event.get("node_id"), event.get("state")) for event in events]
        assert ("NodeEnded", "a", "completed") in seen
        assert seen.index(("NodeStarted", "c", None)) < seen.index(("NodeEnded", "c", "completed"))
        assert ("NodeSkipped", "d", None) in seen
        assert ("NodeEnded", "b", "cancelled") in seen
        assert seen[-2:] == [("GraphEnded", None, "partially failed"), ("GraphResult", None, "partially failed")]
        async with open_process("graph", "retry", graph_id, "b", "--wait", "--url", daemon.url) as process:
            daemon.work.release("b")
            status, lines, errors = await ended(process)
    assert (status, errors) == (0, "")
    assert lines[-1] == "graph completed : 5 completed"


async def test_attempts_and_edits_are_followed(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"w": node("hold w"), "a": node("fail", retries=1, backoff=0.01), "b": node("echo")})
    async with open_daemon(tmp_path, "d1", "d2", listen="127.0.0.1:0") as daemon:
        graph_id = await submitted(daemon, plan)
        async with open_process("graph", "show", graph_id, "--wait", "--json", "--url", daemon.url) as process:
            await process.wait_for_output("GraphSnapshot")
            edit: JSON = {"add": [{"id": "n", "request": "hold n", "device": "d2"}], "remove": ["b"]}
            await daemon.ask("PATCH", f"/graphs/{graph_id}", json=edit)
            await process.wait_for_output("GraphEdited")
            daemon.work.release("n")
            await process.wait_for_output('"node_id": "n", "state": "completed"')
            daemon.work.release("w")
            status, lines, _ = await ended(process)
    assert status == 1
    events = [json.loads(line) for line in lines]
    [edited] = [event for event in events if event["event"] == "GraphEdited"]
    assert (edited["version"], edited["added"], edited["replaced"], edited["removed"]) == (1, ["n"], [], ["b"])
    of_a = [event for event in events if event.get("node_id") == "a" and event["event"] != "NodeReady"]
    assert [event["event"] for event in of_a] == ["NodeStarted", "NodeRetriedWithin", "NodeStarted", "NodeEnded"]
    assert [event["attempt"] for event in of_a[:3]] == [1, 1, 2]
    assert (of_a[3]["state"], of_a[3]["error"]) == ("failed", "as requested")


async def open_in_task(*arguments: str, task_status: trio.TaskStatus[Process]) -> None:
    """Run a command in a task of its own, until it has ended."""
    async with open_process(*arguments) as process:
        task_status.started(process)
        await process.wait()


async def test_following_goes_on_after_the_daemon_was_killed_and_started_again(tmp_path: Path) -> None:
    nodes = {"a": node("hold a"), "b": node("hold b", retries=1, retry_lost=True, backoff=0.01), "c": node("echo")}
    plan = write_plan(tmp_path, nodes, ("b", "c"))
    async with trio.open_nursery() as nursery:
        async with open_daemon(tmp_path, "d1", listen="127.0.0.1:0") as daemon:
            graph_id, port = await submitted(daemon, plan), daemon.url.rpartition(":")[2]
            follow = partial(open_in_task, "graph", "show", graph_id, "--wait", "--json", "--url", daemon.url)
            process = await nursery.start(follow)
            await process.wait_for_output("GraphSnapshot")
            daemon.work.release("a")
            await process.wait_for_output('"node_id": "b", "attempt": 1')
            await until_begun(daemon, "hold b")
            await daemon.kill()
        await process.wait_for_output("is away (trying again for 5 min)", "err")
        async with open_daemon(tmp_path, "d1", listen=f"127.0.0.1:{port}") as daemon:
            daemon.work.release("b")
            await process.wait_for_output(" is back", "err")
            status, lines, errors = await ended(process)
    assert (status, errors.count("\n")) == (0, 2)
    events = [json.loads(line) for line in lines]
    results = events[-1]["results"]
    assert {name: (result["state"], result["attempt"]) for name, result in results.items()} == {
        "a": ("completed", 1), "b": ("completed", 2), "c": ("completed", 1),
    }  # fmt: skip
    started = [(event["node_id"], event["attempt"]) for event in events if event["event"] == "NodeStarted"]
    assert started[-3:] == [("b", 1), ("b", 2), ("c", 1)]
    [retried] = [event for event in events if event["event"] == "NodeRetriedWithin"]
    assert (retried["node_id"], retried["attempt"], retried["within"]) == ("b", 1, 0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_leaves_the_graph_running_and_says_how_to_cancel_it(tmp_path: Path, number: int) -> None:
    plan = write_plan(tmp_path, {"a": node("hold a")})
    async with open_daemon(tmp_path, "d1", listen="127.0.0.1:0") as daemon:
        async with open_process("graph", "submit", plan, "--wait", "--url", daemon.url) as process:
            graph_id = (await process.wait_for_output("\n")).strip()
            await until_begun(daemon, "hold a")
            process.send_signal(number)
            outcome = await process.end()
        assert outcome.status == 128 + number
        assert outcome.err == (f"the graph goes on in the daemon; to cancel it: galaxy-trio graph cancel {graph_id}\n")
        assert (await daemon.ask("GET", f"/graphs/{graph_id}"))["state"] == "running"
        cancelled = await call_process("graph", "cancel", graph_id, "--url", daemon.url)
        assert cancelled.out == "cancelled: 1 cancelled\n"


async def test_terminal_has_a_live_table_that_says_why_a_device_is_away(tmp_path: Path) -> None:
    nodes = {f"a{EVIL}": node("hold a"), "away": node("echo", device="d3")}
    async with open_daemon(tmp_path, "d1", listen="127.0.0.1:0") as daemon:
        daemon.devices("d1", "d3")
        await daemon.reload()
        async with open_terminal(
            "graph", "submit", write_plan(tmp_path, nodes), "--wait", "--url", daemon.url
        ) as terminal:
            await terminal.wait_for_output("d3 is disconnected: ")
            shown = await terminal.wait_for_output("running")
            assert "layer" in shown
            terminal.press(b"\x03")
            shown = await terminal.wait_for_output("to cancel it: galaxy-trio graph cancel")
            assert await terminal.end() == 130
    assert not harmful_characters(shown, coloured=True)


async def test_device_that_a_node_names_and_that_is_away_is_a_line(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": node("echo", device="d3")})
    async with open_daemon(tmp_path, "d1", listen="127.0.0.1:0") as daemon:
        daemon.devices("d1", "d3", "d4")
        await daemon.reload()
        graph_id = await submitted(daemon, plan)
        async with open_process("graph", "show", graph_id, "--wait", "--url", daemon.url) as process:
            await process.wait_for_output("d3 is not connected: ")
            await daemon.fleet.start_device("d3")
            status, lines, _ = await ended(process)
    assert status == 0
    assert "d3 is connected" in lines
    assert not [line for line in lines if line.startswith("d4 ")]


async def test_pipe_that_is_closed_ends_the_command(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"a": node("hold a"), "b": node("echo")}, ("a", "b"))
    async with open_daemon(tmp_path, "d1", listen="127.0.0.1:0") as daemon:
        graph_id = await submitted(daemon, plan)
        reading_end, writing_end = os.pipe()
        os.close(reading_end)
        try:
            start = partial(
                trio.run_process,
                command_of("graph", "show", graph_id, "--wait", "--json", "--url", daemon.url),
                stdout=writing_end,
                capture_stderr=True,
                check=False,
                env=environment(),
            )
            with trio.fail_after(SECONDS):
                done = await start()
        finally:
            os.close(writing_end)
        assert (done.returncode, done.stderr) == (141, b"")
        assert re.fullmatch("[0-9a-f]{32}", graph_id)
