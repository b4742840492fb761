"""The output of every command: it fits into the terminal, and controls nothing in a pipe."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Final

import click
import pytest
import trio
from rich.cells import cell_len

from galaxy_trio._cli.main import command_line
from tests.cli.support.command_line import DEVICE, TOKEN, Call, call_process, command_of, environment
from tests.cli.support.hostile import Answer, call_on_terminal, harmful_characters, open_fake_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.daemon

_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NARROW: Final = 40
LONG: Final = "warehouse-berlin-robot-with-a-very-long-name-0001"
_ERROR: Final = "the printer has no paper, and there is no person who could bring some: " * 5
_TIMES: Final = ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:02+00:00", "2026-01-01T00:00:12+00:00")
TASK: Final = {
    "id": "0123456789abcdef0123456789abcdef", "state": "failed", "request": "List the files in /tmp " * 20, "device": LONG,
    "error": _ERROR, "created": _TIMES[0], "started": _TIMES[1], "ended": _TIMES[2], "retry_of": None, "result": None,
    "history": [
        {"time": _TIMES[0], "event": "accepted"},
        {"time": _TIMES[1], "event": "sent", "device": LONG},
        {"time": _TIMES[2], "event": "failed"},
    ],
}  # fmt: skip
_EVENTS: Final = "".join(
    f"event: task\ndata: {json.dumps({**TASK, 'state': state})}\n\n" for state in ("queued", "running", "failed")
)
_NODES: Final = [
    {"id": LONG, "request": "fail", "device": LONG, "retries": 1},
    {"id": "b", "request": "x" * 200},
    {"id": "c", "request": "[bold]c[/bold]", "name": "a long name for people " * 4},
]
_RESULTS: Final = {
    LONG: {"state": "failed", "attempt": 2, "error": _ERROR},
    "b": {"state": "completed", "result": _ERROR},
}
_GRAPH_EDGES: Final = [{"source": LONG, "target": "b", "when": "end"}, {"source": LONG, "target": "c"}]
GRAPH_ID: Final = "0123456789abcdef0123456789abcde0"
GRAPH: Final = {
    "id": GRAPH_ID, "number": 1, "name": "a long name for people " * 4, "state": "partially failed", "version": 3,
    "nodes": {"failed": 1_000, "completed": 1_000, "ready": 1_000}, "created": _TIMES[0], "ended": _TIMES[2],
}  # fmt: skip
_WHOLE_GRAPH: Final = {**GRAPH, "graph": {"nodes": _NODES, "edges": _GRAPH_EDGES, "results": _RESULTS}}
_REFUSED: Final = Answer({"error": _ERROR}, "409 Conflict")
_DAEMON: Final = {
    "id": "1", "name": LONG, "url": f"https://{LONG}.example.org:8765", "answers": True, "started": _TIMES[0],
    "expires": _TIMES[2], "died": None, "devices": 28, "running": 1_000,
}  # fmt: skip
ANSWERS: Final = {
    "/tasks": Answer({"tasks": [TASK, {**TASK, "device": None}, {**TASK, "device": "d1", "request": "x"}]}),
    f"/tasks/{TASK['id']}": Answer(TASK),
    "/events": Answer(_EVENTS.encode()),
    "/graphs": Answer({"graphs": [GRAPH, {**GRAPH, "name": None, "nodes": {}}]}),
    f"/graphs/{GRAPH_ID}": Answer(_WHOLE_GRAPH),
    f"/graphs/{GRAPH_ID}/nodes/b/cancel": Answer(GRAPH),
    f"/graphs/{GRAPH_ID}/nodes/b/retry": _REFUSED,
    "/devices": Answer({"devices": [{"device_id": LONG, "status": "disconnected", "problem": _ERROR}]}),
    "/cluster": Answer(
        {"now": _TIMES[2], "daemons": [_DAEMON, {**_DAEMON, "died": _TIMES[1]}], "devices": 30, "unowned": 2}
    ),
    f"/cluster/{LONG}/drain": Answer({}),
}


def _commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, *names, name)
        else:
            yield (*names, name)


COMMANDS: Final = list(_commands(command_line))


def _too_wide(shown: str, columns: int) -> list[str]:
    """The lines that do not fit. A spinner's are overwritten in place."""
    lines = re.split(r"[\r\n]+", _CONTROL.sub("", shown))
    return [line for line in lines if cell_len(line) > columns]


def _cases(folder: Path, url: str, daemon: str) -> list[tuple[str, ...]]:
    """Every command whose output is laid out, in the ways in which it can end."""
    refused = {"server_url": "ws://127.0.0.1:1/ws", "os": "linux"}
    devices = [{"device_id": DEVICE, "server_url": url, "token": TOKEN}, {"device_id": LONG, **refused}]
    devices += [{"device_id": f"d{number}", **refused} for number in range(30)]
    fleet, broken, galaxy = folder / "devices.json", folder / "broken.json", folder / "galaxy.toml"
    fleet.write_text(json.dumps({"devices": devices}))
    broken.write_text(json.dumps({"devices": [{"device_id": 5, "server_ulr": "ws://x"}]}))
    galaxy.write_text('devices = "devices.json"\nlisten = "127.0.0.1:0"\n')
    task = str(TASK["id"])
    plan, wrong = folder / "plan.json", folder / "wrong.json"
    nodes = [{"id": LONG, "request": "fail", "retries": 1, "backoff": 0.01}, {"id": "b", "request": "x" * 200}]
    results = {"c": {"state": "failed", "error": _ERROR}}
    nodes.append({"id": "c", "request": "[bold]c[/bold]", "name": "a long name for people " * 4})
    edges = [{"source": LONG, "target": "b", "when": "end"}, {"source": LONG, "target": "c"}]
    plan.write_text(json.dumps({"nodes": nodes, "edges": edges, "results": results}))
    wrong.write_text(json.dumps({"nodes": [{"id": 5, "reqest": "x", "device": LONG * 3}], "edges": [{}]}))
    mine = folder / "mine.json"
    mine.write_text(json.dumps({"devices": devices[:1]}))
    return [
        ("info", url, DEVICE),
        ("info", url, LONG),
        ("run", url, DEVICE, "fail"),
        ("run", "http://wrong", DEVICE, "x"),
        ("tools", url, DEVICE),
        ("devices", "--once", str(fleet)),
        ("check", str(fleet)),
        ("check", str(broken)),
        ("doctor", str(fleet)),
        ("doctor", str(galaxy)),
        ("daemon", "--check", "--config", str(galaxy)),
        ("graph", "check", str(plan)),
        ("graph", "check", str(wrong)),
        ("graph", "show", str(plan)),
        ("graph", "show", str(wrong)),
        ("graph", "run", str(plan), "--devices", str(mine)),
        ("graph", "export", str(plan)),
        ("graph", "list", "--url", daemon),
        ("graph", "show", GRAPH_ID, "--url", daemon),
        ("graph", "show", GRAPH_ID, "--wait", "--url", daemon),
        ("graph", "cancel", GRAPH_ID, "b", "--url", daemon),
        ("graph", "retry", GRAPH_ID, "b", "--url", daemon),
        ("graph", "submit", str(wrong), "--url", daemon),
        ("task", "list", "--url", daemon),
        ("task", "show", task, "--url", daemon),
        ("task", "logs", task, "--url", daemon),
        ("task", "wait", task, "--url", daemon),
        ("task", "cancel", "none", "--url", daemon),
        ("task", "submit"),
        ("events", "--url", daemon),
        ("cluster", "status", "--url", daemon),
        ("cluster", "drain", LONG, "--url", daemon),
        ("server", "--host", "no host"),
        ("agent", url, DEVICE, "--tools", "no.such.module"),
        ("nothing",),
        ("--version",),
    ]


def _name(case: tuple[str, ...]) -> str:
    return " ".join(word for word in case if "/" not in word)


@pytest.mark.slow
async def test_every_commands_output_fits_into_80_columns(tmp_path: Path, url: str) -> None:
    async with open_fake_daemon(ANSWERS) as fake:
        for case in _cases(tmp_path, url, fake.url):
            shown = await call_on_terminal(*case)
            # A path is not cut, so that it can be copied, and this test's may be long.
            assert not [line for line in _too_wide(shown, 80) if str(tmp_path) not in line], _name(case)
            assert not harmful_characters(shown, coloured=True), _name(case)


@pytest.mark.slow
async def test_tables_and_texts_fit_into_a_narrow_terminal(tmp_path: Path, url: str) -> None:
    async with open_fake_daemon(ANSWERS) as fake:
        for case in _cases(tmp_path, url, fake.url):
            laid_out = case[0] in ("devices", "doctor", "task", "events", "tools", "cluster")
            if laid_out or case[:2] in (("graph", "show"), ("graph", "run"), ("graph", "list")):
                shown = await call_on_terminal(*case, columns=_NARROW)
                assert not [line for line in _too_wide(shown, _NARROW) if str(tmp_path) not in line], _name(case)


@pytest.mark.slow
async def test_every_commands_output_controls_nothing_in_a_pipe_and_its_tables_are_80_columns_wide(
    tmp_path: Path, url: str
) -> None:
    async with open_fake_daemon(ANSWERS) as fake:
        for case in _cases(tmp_path, url, fake.url):
            outcome = await call_process(*case)
            assert not harmful_characters(outcome.out + outcome.err), _name(case)
            assert outcome.err.count("error: ") <= 1, _name(case)
            if case[:2] in (("task", "list"), ("graph", "list"), ("devices", "--once")) or case[0] == "tools":
                assert not _too_wide(outcome.out, 80), _name(case)


@pytest.mark.slow
async def test_there_are_no_colours_with_no_color(tmp_path: Path, url: str) -> None:
    async with open_fake_daemon(ANSWERS) as fake:
        for case in _cases(tmp_path, url, fake.url):
            if case[0] in ("devices", "doctor", "nothing") or case[:2] == ("graph", "run"):
                assert re.search(r"\x1b\[3\dm", await call_on_terminal(*case)), _name(case)
                shown = await call_on_terminal(*case, variables={"NO_COLOR": "1"})
                assert not re.search(r"\x1b\[[0-9;]*[34]\d", shown), _name(case)


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help_fits_into_80_columns_and_names_its_values(
    call: Call, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = call(*names, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert not _too_wide(outcome.out, 80)
    assert not harmful_characters(outcome.out)
    # click makes these up from the types' names; and it cuts sentences that are too long for the list of commands.
    assert not re.search(r"_TEXT|INTEGER|RANGE|\.\.\.$", outcome.out.partition("\n")[2], re.MULTILINE)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), (), ("task", "--help"), ("check", "FILE"), ("graph", "show", "PLAN")]
)
async def test_pipe_that_is_closed_ends_every_output_with_141(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "devices.json"
    file.write_text(json.dumps({"devices": [{"device_id": "a", "server_url": "ws://a"}]}))
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"nodes": [{"id": "a", "request": "x"}]}))
    files = {"FILE": str(file), "PLAN": str(plan)}
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    try:
        with trio.fail_after(SECONDS):
            done = await trio.run_process(
                command_of(*(files.get(word, word) for word in arguments)),
                stdout=writing_end,
                capture_stderr=True,
                check=False,
                env=environment(),
            )
    finally:
        os.close(writing_end)
    assert (done.returncode, done.stderr) == (141, b"")
