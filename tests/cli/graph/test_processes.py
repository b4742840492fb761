"""``galaxy-trio graph run`` as a process: on terminals of any kind, in pipes that are full or closed, and with real servers and agents."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import pytest
import trio
from rich.cells import cell_len

from tests.cli.graph.support import open_devices, write_devices, write_plan
from tests.cli.support.command_line import EXAMPLE_TOOLS, TOKEN, call_process, command_of, environment, open_process
from tests.cli.support.hostile import EVIL, call_on_terminal, harmful_characters
from tests.cli.support.pseudo_terminal import open_terminal
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def test_graph_runs_on_a_real_server_and_agents(tmp_path: Path) -> None:
    nodes: dict[str, dict[str, object]] = {
        "add": {"request": 'add {"a": 2, "b": 3}', "device": "one"},
        "look": {"request": "where_am_i", "device": "two"},
        "wrong": {"request": 'add {"a": "x"}', "device": "two"},
        "last": {"request": "echo done"},
    }
    plan = write_plan(tmp_path, nodes, ("add", "last"), ("look", "last"))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_process("server", "--port", "0"))
        url = (await server.wait_for_output("/ws")).strip()
        for device in ("one", "two"):
            agent = await stack.enter_async_context(open_process("agent", url, device, "--tools", EXAMPLE_TOOLS))
            await agent.wait_for_output("registered")
        devices, output = write_devices(tmp_path, url, "one", "two"), str(tmp_path / "out.json")
        outcome = await call_process("graph", "run", plan, "--devices", devices, "--json", "--output", output)
        again = await call_process("graph", "run", output, "--devices", devices)
    assert outcome.status == again.status == 1
    last = cast("dict[str, dict[str, dict[str, object]]]", json.loads(outcome.out.splitlines()[-1]))
    results = {name: (node["state"], node["result"]) for name, node in last["results"].items()}
    assert results["add"] == ("completed", 5)
    assert results["last"] == ("completed", {"echo": "done"})
    assert results["wrong"][0] == "failed"
    assert "started" not in again.out
    assert TOKEN not in outcome.out + outcome.err


EVIL_PLAN: dict[str, dict[str, object]] = {
    f"fail{EVIL}": {"request": f"fail{EVIL}", "retries": 1, "backoff": 0.01},
    "a node with a very long name " * 4: {"device": "laptop"},
    "short": {"name": EVIL},
}


@pytest.mark.parametrize(
    ("columns", "variables"),
    [(40, {}), (80, {}), (200, {}), (80, {"NO_COLOR": "1"}), (80, {"TERM": "dumb"})],
    ids=["narrow", "usual", "wide", "no colour", "dumb"],
)
async def test_table_and_lines_fit_into_any_terminal_and_names_control_nothing(
    tmp_path: Path, columns: int, variables: dict[str, str]
) -> None:
    plan = write_plan(tmp_path, EVIL_PLAN, (f"fail{EVIL}", "short"))
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        for command in (("graph", "run", plan, "--devices", devices), ("graph", "show", plan)):
            shown = await call_on_terminal(*command, columns=columns, variables=variables)
            assert not harmful_characters(shown, coloured=True)
            if "TERM" in variables:
                assert "\x1b" not in shown
            elif command[1] == "run":
                assert "\x1b[2K" in shown
                assert bool(re.search(r"\x1b\[3\dm", shown)) is not bool(variables)
            lines = re.split(r"[\r\n]+", _CONTROL.sub("", shown))
            # Nothing is known of the width of a dumb terminal.
            if "TERM" not in variables:
                assert not [line for line in lines if cell_len(line) > columns]


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
async def test_names_and_errors_control_nothing_in_a_pipe(tmp_path: Path, options: tuple[str, ...]) -> None:
    plan = write_plan(tmp_path, EVIL_PLAN, (f"fail{EVIL}", "short"))
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        outcome = await call_process("graph", "run", plan, "--devices", devices, *options)
    assert outcome.status == 1
    assert "\\u001b]0;title" in outcome.out
    assert not harmful_characters(outcome.out + outcome.err)


async def test_second_ctrl_c_does_not_wait_for_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async with open_process("server", "--port", "0") as server:
        url = (await server.wait_for_output("/ws")).strip()
        async with open_process("agent", url, "laptop", "--tools", EXAMPLE_TOOLS) as agent:
            await agent.wait_for_output("registered")
            plan = write_plan(tmp_path, {"a": {"request": "where_am_i"}, "b": {"request": "where_am_i"}})
            agent.send_signal(signal.SIGSTOP)
            devices, output = write_devices(tmp_path, url, "laptop"), tmp_path / "out.json"
            async with open_terminal("graph", "run", plan, "--devices", devices, "--output", str(output)) as terminal:
                await terminal.wait_for_output("running")
                server.send_signal(signal.SIGSTOP)
                terminal.process.send_signal(signal.SIGINT)
                await terminal.wait_for_output("Ctrl-C leaves immediately")
                terminal.process.send_signal(signal.SIGINT)
                shown = await terminal.wait_for_output("interrupted: the")
                assert await terminal.end() == 130
            assert "was stopped" not in shown
            # The cursor is shown again.
            assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
            assert json.loads(await trio.Path(output).read_text())["results"]["a"]["state"] == "cancelled"


async def test_full_pipe_keeps_no_node_waiting_and_is_read_later(tmp_path: Path) -> None:
    nodes: dict[str, dict[str, object]] = {f"node {number}": {} for number in range(60)}
    plan = write_plan(tmp_path, nodes)
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        async with open_process("graph", "run", plan, "--devices", devices, "--json") as process:
            assert process.stdout is not None
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4_096)
            await server.wait_for(*nodes)
            outcome = await process.end()
    assert outcome.status == 0
    assert json.loads(outcome.out.splitlines()[-1])["state"] == "completed"
    assert outcome.out.count('"NodeEnded"') == 60


async def test_terminal_that_is_stopped_with_ctrl_s_keeps_no_node_waiting(tmp_path: Path) -> None:
    # Long enough for several updates of the table.
    steps = [f"step {number}" for number in range(30)]
    plan = write_plan(
        tmp_path, {"wait": {"device": "phone"}, **{step: {"device": "laptop"} for step in steps}}, *pairwise(steps)
    )
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        async with open_terminal("graph", "run", plan, "--devices", devices) as terminal:
            await terminal.wait_for_output("step 0")
            terminal.press(b"\x13")
            await server.wait_for("step 29")
            terminal.press(b"\x03")
            await terminal.wait_for_output("cancelled after")
            assert await terminal.end() == 130


async def test_ctrl_c_ends_a_command_whose_pipe_is_full(tmp_path: Path) -> None:
    nodes: dict[str, dict[str, object]] = {f"node {number}": {} for number in range(60)}
    plan = write_plan(tmp_path, nodes)
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        async with open_process("graph", "run", plan, "--devices", devices, "--json") as process:
            assert process.stdout is not None
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4_096)
            await server.wait_for(*nodes)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            status = await process.wait()
    assert status in (128 + signal.SIGINT, 128 + signal.SIGTERM)


async def test_pipe_that_is_closed_ends_the_command_and_stops_its_tasks(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"wait": {}, "b": {}, "c": {}}, ("b", "c"))
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        reading_end, writing_end = os.pipe()
        os.close(reading_end)
        try:
            start = partial(
                trio.run_process,
                command_of("graph", "run", plan, "--devices", devices),
                stdout=writing_end,
                stderr=subprocess.PIPE,
                check=False,
                env=environment(),
            )
            async with trio.open_nursery() as nursery:
                process = cast("trio.Process", await nursery.start(start))
                assert process.stderr is not None
                with trio.fail_after(SECONDS):
                    errors = b"".join([data async for data in process.stderr])
                    assert await process.wait() == 141
        finally:
            os.close(writing_end)
    assert errors == b""


async def test_stdout_that_was_closed_before_changes_nothing(tmp_path: Path) -> None:
    plan, closed = write_plan(tmp_path, {"a": {}, "fail": {}}), tmp_path / "out.json"
    async with open_devices() as server:
        devices = write_devices(tmp_path, server.url, "laptop", "phone")
        words = " ".join(
            map(shlex.quote, command_of("graph", "run", plan, "--devices", devices, "--output", str(closed)))
        )
        with trio.fail_after(SECONDS):
            done = await trio.run_process(  # noqa: S604  # to close it
                f"{words} >&-", shell=True, capture_stderr=True, check=False, env=environment()
            )
    assert (done.returncode, done.stderr) == (
        1,
        b"error: the graph is partially failed: node 'fail' is failed: there is no paper\n",
    )
    assert json.loads(await trio.Path(closed).read_text())["results"]["a"]["state"] == "completed"


async def test_closed_terminal_stops_the_tasks(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"wait": {}})
    with trio.fail_after(SECONDS):
        async with open_devices() as server:
            devices = write_devices(tmp_path, server.url, "laptop")
            async with open_terminal("graph", "run", plan, "--devices", devices) as terminal:
                await server.wait_for("wait")
                terminal.close()
                assert await terminal.end() != 0
                await server.wait_for("wait", stopped=True)
