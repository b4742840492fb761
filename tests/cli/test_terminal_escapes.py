"""No command lets text from elsewhere control the terminal."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from trio_websocket import ConnectionClosed, serve_websocket

from galaxy_trio._codec.codec import encode
from galaxy_trio.messages import ServerMessage, ServerMessageType, TaskStatus
from galaxy_trio.server import open_server
from tests.cli.support.command_line import DEVICE, TOKEN, call_process, open_process
from tests.cli.support.hostile import EVIL, ID, Answer, call_on_terminal, harmful_characters, open_fake_daemon
from tests.cli.support.world import open_world
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from trio_websocket import WebSocketRequest

    from galaxy_trio.server import ServerTask

pytestmark = pytest.mark.daemon

TASK: Final = {
    "id": ID, "state": "completed", "request": EVIL, "device": EVIL, "created": EVIL, "error": EVIL, "retry_of": EVIL,
    "result": [EVIL, {EVIL: EVIL}],
}  # fmt: skip
FAILED: Final = {**TASK, "state": "failed", "result": EVIL}
_SSE: Final = EVIL.replace("\x85", "").replace("\u2028", "")  # they end a line of the stream
EVENT: Final = f"event: {_SSE}\ndata: {json.dumps([_SSE], ensure_ascii=False)}\n\n".encode()


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        (("submit", "x", "--wait"), {"/tasks": TASK, f"/tasks/{ID}": TASK}),
        (("submit", "x", "--json"), {"/tasks": FAILED}),
        (("wait", ID), {f"/tasks/{ID}": FAILED}),
        (("wait", ID, "--json"), {f"/tasks/{ID}": FAILED}),
        (("wait", EVIL.replace("\x85", "")), {}),
        (("show", ID), {f"/tasks/{ID}": TASK}),
        (("list",), {"/tasks": {"tasks": [TASK, FAILED]}}),
        (("list", "--json"), {"/tasks": {"tasks": [TASK, FAILED]}}),
    ],
)
async def test_daemons_answers_are_printable_on_a_terminal(
    command: tuple[str, ...], answers: dict[str, object]
) -> None:
    prepared = {path: Answer(body) for path, body in answers.items()}
    async with open_fake_daemon(prepared) as fake:
        shown = await call_on_terminal("task", *command, "--url", fake.url)
    assert "\\u001b]0;title" in shown or not answers
    assert not harmful_characters(shown, coloured=True)


@pytest.mark.parametrize(
    ("command", "path", "answer"),
    [
        (("task", "cancel", ID), f"/tasks/{ID}", Answer({**TASK, "state": EVIL})),
        (("task", "show", ID), f"/tasks/{ID}", Answer({"error": EVIL}, "409 Conflict")),
        (("events",), "/events", Answer(EVENT)),
        (("events", "--json"), "/events", Answer(EVENT)),
    ],
)
async def test_other_answers_are_printable(command: tuple[str, ...], path: str, answer: Answer) -> None:
    async with open_fake_daemon({path: answer}) as fake:
        outcome = await call_process(*command, "--url", fake.url)
    shown = outcome.out + outcome.err
    assert "\\u009b" in shown
    assert not harmful_characters(shown)


async def _say(task: ServerTask) -> object:
    return json.loads(task.request)


@pytest.mark.parametrize(
    ("result", "form"), [(EVIL, ()), ({EVIL: [EVIL]}, ()), (EVIL, ("--json",))], ids=["text", "object", "json"]
)
async def test_result_of_a_server_is_printable_on_a_terminal(result: object, form: tuple[str, ...]) -> None:
    async with open_world(session=_say) as server:
        shown = await call_on_terminal("run", server.url, DEVICE, json.dumps(result), *form, "-vv")
    assert "\\u009b" in shown
    assert not harmful_characters(shown, coloured=True)


async def _refuse(request: WebSocketRequest) -> None:
    """Refuse a registration with words that would control a terminal."""
    websocket = await request.accept()
    with suppress(ConnectionClosed):
        await websocket.get_message()
        await websocket.send_message(encode(ServerMessage(ServerMessageType.ERROR, TaskStatus.ERROR, error=EVIL)))
        await websocket.aclose()


async def test_log_of_the_daemon_and_table_of_devices_are_printable(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, _refuse, "127.0.0.1", 0, None))
        url = f"ws://127.0.0.1:{server.port}"
        device = {"device_id": f"d{EVIL}", "server_url": url, "max_retries": 0}
        devices = tmp_path / "devices.json"
        devices.write_text(json.dumps({"devices": [device]}))
        (tmp_path / "galaxy.toml").write_text('devices = "devices.json"\nlisten = "127.0.0.1:0"\n')
        async with open_process("daemon", "--config", str(tmp_path / "galaxy.toml")) as process:
            await process.wait_for_output("was given up", "err")
            process.send_signal(signal.SIGTERM)
            log = (await process.end()).err
        table = await call_on_terminal("devices", str(devices), "--once")
        checked = await call_on_terminal("check", str(devices))
        nursery.cancel_scope.cancel()
    assert "\\u009b" in log
    assert "d\\u001b]0;" in table
    assert not harmful_characters(log + checked, coloured=True)
    assert not harmful_characters(table, coloured=True)


LOGGING: Final = """
import logging, sys
from contextlib import nullcontext
from galaxy_trio._cli.terminal import logging_to_stderr
from galaxy_trio.daemon.logs import logging_as
evil = sys.argv[2]
with {"cli": logging_to_stderr, "console": lambda: logging_as("console"), "json": lambda: logging_as("json")}[sys.argv[1]]():
    for name in ("galaxy_trio.daemon", "another.library"):
        logger = logging.getLogger(name)
        logger.warning("one: %s", evil)
        try:
            raise ValueError(evil + "\\n2026-01-01 00:00:00 ERROR galaxy_trio: forged\\x1e2026-01-01 forged")
        except ValueError:
            logger.exception("two", stack_info=True)
"""


@pytest.mark.parametrize("form", ["cli", "console", "json"])
async def test_log_records_of_this_package_and_of_others_are_printable(form: str) -> None:
    with trio.fail_after(SECONDS):
        done = await trio.run_process([sys.executable, "-c", LOGGING, form, EVIL], capture_stderr=True)
    shown = done.stderr.decode()
    assert shown.count("another.library") == 2
    assert not harmful_characters(shown)
    if form == "json":
        assert all(json.loads(line)["message"] for line in shown.splitlines())
    else:
        # The lines of a traceback are indented, so that none looks like a record.
        records = [line for line in shown.splitlines() if not line.startswith("  ")]
        assert len(records) == 4
        assert "forged" not in "".join(records)


CRASH: Final = """
import sys
import galaxy_trio._cli.main
import galaxy_trio.__main__
def crash(arguments):
    raise RuntimeError(sys.argv[1])
galaxy_trio._cli.main.run_command_line = crash
galaxy_trio.__main__.main()
"""


async def test_traceback_of_a_bug_is_printable() -> None:
    with trio.fail_after(SECONDS):
        done = await trio.run_process([sys.executable, "-c", CRASH, EVIL], capture_stderr=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: \\u001b]0;title" in done.stderr.decode()
    assert not harmful_characters(done.stderr.decode())


async def test_output_of_an_agent_is_printable() -> None:
    async with open_server(token=TOKEN) as server, open_process("agent", server.url, f"d{EVIL}") as process:
        shown = await process.wait_for_output("registered as")
        process.send_signal(signal.SIGTERM)
        outcome = await process.end()
    assert "\\u009b" in shown
    assert not harmful_characters(outcome.out + outcome.err)
