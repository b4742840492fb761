"""``galaxy-trio agent``: retries, log and shutdown."""

from __future__ import annotations

import importlib
import os
import signal
import ssl
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from galaxy_trio import TaskStatus
from galaxy_trio._cli.server_session import run_as_command
from galaxy_trio.messages import Command as WireCommand
from galaxy_trio.messages import ToolType
from galaxy_trio.server import open_server
from tests.cli.support.command_line import (
    DEVICE,
    EXAMPLE_TOOLS,
    NO_SERVER,
    TOKEN,
    Call,
    Command,
    ask,
    is_one_sentence,
    open_process,
    tool_options,
    with_command,
)
from tests.connection.support.raw_peer import open_raw_peer
from tests.support.waiting import SECONDS, close_without_a_limit

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://x", "ws://"), ("ws://person:secret@x", "no user and password"), (f"ws://x?token={TOKEN}", "token")],
)
def test_invalid_url_is_reported_before_anything_starts_and_without_secrets(call: Call, url: str, words: str) -> None:
    outcome = call("agent", url, DEVICE, "--mcp", "/no/such/program")
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert words in outcome.err
    assert "secret" not in outcome.err


def test_refused_connection_without_retries_is_one_sentence_and_exits_with_3(call: Call) -> None:
    outcome = call("agent", NO_SERVER, DEVICE, "--max-retries", "0", "-q")
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (3, "", True)
    assert "connection refused" in outcome.err


@with_command
async def test_untrusted_certificate_exits_with_3(command: Command) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # it can also be another library's context
    async with open_server(token=TOKEN, ssl_context=context) as server:
        command.start("agent", server.url, DEVICE)
        outcome = await command.end()
    assert (outcome.status, outcome.out) == (3, "")
    assert "certificate" in outcome.err.splitlines()[-1]


@with_command
async def test_wrong_token_is_a_warning_and_is_retried(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALAXY_TRIO_TOKEN", "wr0ng")
    async with open_server(token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, "-q")
        output = await command.wait_for_stderr("trying again in 300.0 s\n")
        assert " WARNING " in output
        assert "403" in output
        outcome = await command.terminate()
    assert (outcome.status, outcome.out) == (0, "")
    assert "wr0ng" not in outcome.err


@with_command
async def test_name_in_use_is_logged_and_retried(command: Command) -> None:
    async with open_server(token=TOKEN) as server, open_process("agent", server.url, DEVICE) as first:
        await first.wait_for_output("registered as")
        command.start("agent", server.url, DEVICE)
        output = await command.wait_for_stderr("trying again in 5.0 s\n")
        assert "already registered" in output.lower()
        outcome = await command.terminate()
        assert server.devices == [DEVICE]
        first.send_signal(signal.SIGTERM)
        assert (await first.end()).status == 0
    assert (outcome.status, outcome.out) == (0, "")


@with_command
async def test_agent_registers_again_when_the_server_is_back(command: Command) -> None:
    async with open_server(token=TOKEN) as server:
        url, port = server.url, int(server.url.split(":")[2].partition("/")[0])
        command.start("agent", url, DEVICE)
        await command.first_line()
    await command.wait_for_stderr(f"device {DEVICE!r} lost its connection: ")
    async with open_server(port=port, token=TOKEN, session=run_as_command) as server:
        await command.wait_for_stderr(f" registered with the server of device {DEVICE!r}\n", times=2)
        assert server.devices == [DEVICE]
        outcome = await command.terminate()
    assert (outcome.status, outcome.out.count("\n")) == (0, 1)
    assert "Traceback" not in outcome.err


@with_command
async def test_calls_are_logged_to_stderr_with_escaped_text(command: Command, folder: Path) -> None:
    evil = "x\n00:00:00 forged\x1b]0;title\x07\u202e"
    device = f"{DEVICE}\n\x1b[31m"

    async def session(task: ServerTask) -> object:
        names = [evil, "list_directory", "add"]
        parameters: list[dict[str, JSON] | None] = [None, {"path": evil}, {"a": 1, "b": 1, evil: evil}]
        batch = [WireCommand(name, ToolType.ACTION, each) for name, each in zip(names, parameters, strict=True)]
        return [result.status.value for result in await task.execute(batch, stop_on_failure=False)]

    async with open_server(session=session, token=TOKEN) as server:
        command.start("agent", server.url, device, *tool_options(EXAMPLE_TOOLS))
        assert (await command.first_line()).startswith(f"registered as {DEVICE} \\u001b[31m with 3 tools: ")
        assert (await ask(server.url, "go", device=device)).unwrap() == ["failure"] * 3
        outcome = await command.terminate()
    assert outcome.status == 0
    assert " tool 'list_directory': cannot list 'x" in outcome.err
    assert "there is no tool" in outcome.err
    assert [line for line in outcome.err.splitlines() if line.startswith("00:00:00")] == []
    for harmful in ("\x1b", "\x07", "\u202e"):
        assert harmful not in outcome.err


@with_command
async def test_exception_in_a_tool_is_logged_with_traceback_and_the_agent_continues(
    command: Command, folder: Path
) -> None:
    (folder / "fragile.py").write_text("def fall(): return 1 / 0\ndef stand(): return 'up'")
    importlib.invalidate_caches()
    async with open_server(session=run_as_command, token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tool_options("fragile:fall", "fragile:stand"), "-q")
        await command.first_line()
        failed = await ask(server.url, "fall")
        assert (failed.status, failed.error) == (TaskStatus.FAILED, "ZeroDivisionError: division by zero")
        assert (await ask(server.url, "stand")).unwrap() == "up"
        outcome = await command.terminate()
    del sys.modules["fragile"]
    assert " WARNING galaxy_trio.agent.command_runner: tool 'fall' raised\n" in outcome.err
    assert 'fragile.py", line 1, in fall' in outcome.err
    assert "stand" not in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@with_command
async def test_signal_closes_the_connection_and_exits_with_0(command: Command, number: int) -> None:
    with trio.fail_after(SECONDS):
        async with open_raw_peer() as peer:
            command.start("agent", peer.url, DEVICE)
            await command.first_line()
            command.send_signal(number)
            await peer.read_until(sys.maxsize)
            assert peer.closed_with == 1000
            await peer.hang_up()
            outcome = await command.end()
    assert outcome.status == 0
    assert "error" not in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@with_command
async def test_signal_before_the_registration_exits_immediately_with_0(command: Command, number: int) -> None:
    with trio.fail_after(SECONDS):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            command.start("agent", f"ws://127.0.0.1:{listener.socket.getsockname()[1]}", DEVICE)
            async with await listener.accept() as stream:
                assert b"Upgrade" in await stream.receive_some()
                command.send_signal(number)
                outcome = await command.end()
                assert await stream.receive_some() == b""
    assert (outcome.status, outcome.out) == (0, "")
    assert "error" not in outcome.err
    assert "Traceback" not in outcome.err


@with_command
async def test_second_signal_exits_immediately(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    close_without_a_limit(monkeypatch)
    with trio.fail_after(SECONDS):
        async with open_raw_peer() as peer:
            command.start("agent", peer.url, DEVICE)
            await command.first_line()
            command.send_signal(signal.SIGTERM)
            await peer.read_until(sys.maxsize)
            # The peer does not answer the close.
            command.send_signal(signal.SIGINT)
            outcome = await command.end()
    assert outcome.status == 0
    assert "Traceback" not in outcome.err


async def test_agent_runs_with_a_closed_stderr() -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    try:
        async with (
            open_server(session=run_as_command, token=TOKEN) as server,
            open_process("agent", server.url, DEVICE, *tool_options(EXAMPLE_TOOLS), stderr=writing_end) as process,
        ):
            await process.wait_for_output(f"registered as {DEVICE} with 3 tools")
            assert (await ask(server.url, 'add {"a": 1, "b": 1}')).unwrap() == 2
            process.send_signal(signal.SIGTERM)
            assert (await process.end()).status == 0
    finally:
        os.close(writing_end)
