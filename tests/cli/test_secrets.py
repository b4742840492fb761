"""No output of any command, in any mode, contains a token, a password or a key."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Final

import pytest

from galaxy_trio._cli.destination import Destination
from galaxy_trio._cli.mcp import read_mcp_servers
from galaxy_trio.errors import ConfigError
from tests.cli.support.command_line import (
    DEVICE,
    EXAMPLE_TOOLS,
    NO_SERVER,
    TOKEN,
    Call,
    Outcome,
    call_process,
    is_one_sentence,
    open_process,
)
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SECRET: Final = "sk-1234-SECRET"
PROGRAM: Final = ROOT / "tests" / "agent" / "support" / "odd_mcp_server.py"


def _is_refused(outcome: Outcome, status: int = 2) -> bool:
    return outcome.status == status and is_one_sentence(outcome) and "SECRET" not in outcome.out + outcome.err


@pytest.mark.daemon
@pytest.mark.parametrize(
    "address",
    [
        "http://user:{}@127.0.0.1:8765",
        "http://{}@127.0.0.1:8765",
        "http://:{}@127.0.0.1",
        "http://@{}:8765",
        "user:{}@127.0.0.1:8765",
        "htp://user:{}@127.0.0.1:8765",
        "http://user:{}/x@127.0.0.1:8765",
        "http://[user:{}@127.0.0.1",
        "http://127.0.0.1:{}",
        "http://127.0.0.1:8765?token={}",
        "http://127.0.0.1:8765/#{}",
        "{}",
    ],
)
@pytest.mark.parametrize("modes", [(), ("-vv",)], ids=["", "verbose"])
def test_address_with_a_password_is_refused_and_not_shown(
    call: Call, address: str, modes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address.format(SECRET)
    for command in (("task", "list"), ("task", "wait", "1", "--json"), ("events",)):
        assert _is_refused(call(*command, "--url", address, *modes))
    monkeypatch.setenv("GALAXY_TRIO_DAEMON", address)
    assert _is_refused(call("task", "list", *modes))


@pytest.mark.daemon
def test_path_of_the_daemons_address_is_not_shown(call: Call) -> None:
    outcome = call("task", "list", "--url", f"http://127.0.0.1:1/{SECRET}", "-vv")
    assert _is_refused(outcome, 3)
    assert "cannot reach a daemon at http://127.0.0.1:1: " in outcome.err


@pytest.mark.parametrize(
    "url",
    [
        "ws://127.0.0.1:1/ws?token={}",
        "ws://127.0.0.1:1/ws?Token={}",
        "ws://127.0.0.1:1/ws;token={}",
        "ws://127.0.0.1:1/ws;a=b;TOKEN={}",
        "ws://127.0.0.1:1/ws%3Btoken={}",
        "ws://127.0.0.1:1/ws%3Ftoken%3D{}",
        "ws://user:{}@127.0.0.1:1/ws",
        "ws://{}@127.0.0.1:1/ws",
        "user:{}@127.0.0.1:1/ws",
        "http://user:{}@127.0.0.1:1/ws",
        "ws://127.0.0.1:1/ws#token={}",
        "ws://127.0.0.1:{}/ws",
        "ws://[user:{}@127.0.0.1/ws",
    ],
)
def test_server_url_with_a_token_is_refused_and_not_shown(call: Call, url: str) -> None:
    for command in (("info",), ("run", "-vv"), ("agent", "-v")):
        assert _is_refused(call(*command, url.format(SECRET), DEVICE, *(("x",) if command[0] == "run" else ())))


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:1/ws;key={}", "ws://127.0.0.1:1/ws?key={}", "ws://127.0.0.1:1/ws%3F{}"]
)
def test_part_of_a_server_url_that_may_be_a_token_is_not_shown(call: Call, url: str) -> None:
    outcome = call("info", url.format(SECRET), DEVICE, "-vv")
    assert _is_refused(outcome, 3)
    assert "ws://127.0.0.1:1/ws" in outcome.err
    assert "SECRET" not in repr(Destination(url.format(SECRET), DEVICE))


@pytest.mark.daemon
@pytest.mark.parametrize("value", ["123456789", "[123456789]", "{a = 123456789}", "1234567.89", "1979-05-27", "true"])
def test_token_that_was_given_as_the_token_file_of_a_daemon_is_not_shown(
    call: Call, tmp_path: Path, value: str
) -> None:
    (tmp_path / "devices.json").write_text('{"devices": []}')
    config = tmp_path / "galaxy.toml"
    for shown, written in ((value, value), (SECRET, f'"{SECRET}"'), (SECRET, f'"a/{SECRET}"')):
        config.write_text(f'devices = "devices.json"\nlisten = "127.0.0.1:0"\ntoken_file = {written}\n')
        for modes in (("--check",), ("--check", "-vv"), ()):
            outcome = call("daemon", "--config", str(config), *modes)
            # A check prints each problem on a line of its own.
            assert outcome.status == 2
            assert "--check" in modes or is_one_sentence(outcome)
            assert shown not in outcome.err.replace("whose name is not shown", "")


@pytest.mark.parametrize("key", ["token_file", "token_env"])
def test_token_that_was_given_instead_of_its_source_is_not_shown(call: Call, tmp_path: Path, key: str) -> None:
    devices = tmp_path / "devices.json"
    device = {"device_id": "d", "server_url": "ws://127.0.0.1:1", key: SECRET}
    devices.write_text(json.dumps({"devices": [device]}))
    for modes in ((), ("--json",), ("-vv",)):
        outcome = call("devices", str(devices), "--once", *modes)
        assert outcome.status == 3
        assert "SECRET" not in outcome.out + outcome.err
    assert _is_refused(call("info", NO_SERVER, DEVICE, "--token-file", SECRET))


@pytest.mark.parametrize(
    "command",
    [
        f"API_KEY={SECRET} no-such-program",
        f"API_KEY={SECRET}",
        f"api_key={SECRET} no-such-program",
        f"notes=API_KEY={SECRET} no-such-program",
        f"notes={SECRET} no-such-program",
        f"notes=/{SECRET}",
        f"notes={PROGRAM.parent}",
        f"notes=no-such-program --key {SECRET}",
        f"'notes={SECRET}",
    ],
)
@pytest.mark.parametrize("modes", [("-q",), ("-v",)])
@pytest.mark.programs
def test_key_in_the_command_of_an_mcp_server_is_not_shown(call: Call, command: str, modes: tuple[str, ...]) -> None:
    outcome = call("agent", NO_SERVER, DEVICE, *modes, "--mcp", command)
    assert _is_refused(outcome)
    assert str(PROGRAM.parent) not in outcome.err


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        (f"1={SECRET}", "is not of the form"),
        (SECRET, "is not of the form"),
        (f"={SECRET}", "is not of the form"),
        (f"other:KEY={SECRET}", "is for a server that no --mcp starts"),
        ("NO_SUCH_VARIABLE_SECRET", "names a variable that is not set"),
    ],
)
def test_invalid_variable_of_mcp_servers_is_refused_and_not_shown(call: Call, variable: str, words: str) -> None:
    outcome = call("agent", NO_SERVER, DEVICE, "--mcp", "notes=prog", "--mcp-env", variable)
    assert _is_refused(outcome)
    assert f"error: --mcp-env {words}" in outcome.err
    with pytest.raises(ConfigError, match=f"^--mcp-env number 2 {words}") as caught:
        read_mcp_servers(["notes=prog"], ["A=1", variable])
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def test_variables_are_passed_to_all_mcp_servers_or_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", SECRET)
    given = ["ALL=1", "FROM_HERE", "b:ONLY_B=x=y:z", "b:FROM_HERE=here", "own=", "ALL=2"]
    a, b, c = read_mcp_servers(["a=prog", "b=prog --all", "C=3 ALL=own prog"], given)
    assert a.env == {"ALL": "2", "FROM_HERE": SECRET, "own": ""}
    assert b.env == {"ALL": "2", "FROM_HERE": "here", "ONLY_B": "x=y:z", "own": ""}
    assert c.env == {"ALL": "own", "FROM_HERE": SECRET, "C": "3", "own": ""}
    assert [server.env for server in read_mcp_servers(["prog"], [])] == [None]
    assert "SECRET" not in repr((a, b, c))


@pytest.mark.parametrize(
    "arguments",
    [
        ("task", "list", SECRET),
        ("info", "ws://x", DEVICE, f"({SECRET})\n{SECRET}"),
        ("demo", "Bearer", SECRET),
        ("task", "list", f"--token={SECRET}"),
        ("info", "ws://x", DEVICE, f"--token-fil={SECRET}"),
    ],
)
def test_extra_argument_that_may_be_a_token_is_not_shown(call: Call, arguments: tuple[str, ...]) -> None:
    assert _is_refused(call(*arguments))


@pytest.mark.slow
@pytest.mark.daemon
@pytest.mark.programs
async def test_no_output_in_any_mode_contains_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = tmp_path / "starts"
    (tmp_path / "daemon.token").write_text(f"{SECRET}-daemon")
    (tmp_path / "galaxy.toml").write_text(
        'devices = "devices.json"\nlisten = "127.0.0.1:0"\ntoken_file = "daemon.token"\nlog = "json"\n'
    )
    monkeypatch.setenv("GALAXY_TRIO_DAEMON_TOKEN", f"{SECRET}-daemon")
    monkeypatch.setenv("SERVERS_KEY", SECRET)
    monkeypatch.setenv("STARTS", str(starts))
    mcp = ["--mcp", f"odd=API_KEY={SECRET} {sys.executable} {PROGRAM} 'ends well' --key={SECRET}"]
    shown = ""
    async with open_process("server", "--port", "0", "-v") as server:
        url = (await server.wait_for_output("\n")).strip()
        device = {"device_id": DEVICE, "server_url": url, "token": TOKEN, "headers": {"X-Key": SECRET}}
        (tmp_path / "devices.json").write_text(json.dumps({"devices": [device]}))
        variables = ("--mcp-env", "odd:SERVERS_KEY", "--mcp-env", "STARTS")
        agent = ("agent", url, DEVICE, "-v", "--tools", EXAMPLE_TOOLS, *mcp, *variables)
        config = ("daemon", "--config", str(tmp_path / "galaxy.toml"))
        async with open_process(*agent) as agent_process, open_process("-vv", *config) as daemon:
            await agent_process.wait_for_output("registered as")
            address = (await daemon.wait_for_output("\n")).strip()
            for command in (
                ("run", url, DEVICE, 'answer {"answer": "x"}', "-vv"),
                ("run", url, DEVICE, "no_such_tool", "--json", "-vv"),
                ("info", url, DEVICE, "-vv"),
                ("info", url, "nothing", "-vv"),
                ("devices", str(tmp_path / "devices.json"), "--once", "-vv"),
                ("devices", str(tmp_path / "devices.json"), "--once", "--json"),
                ("check", str(tmp_path / "devices.json"), "-vv"),
                ("task", "submit", 'answer {"answer": "x"}', "--wait", "--json", "-vv", "--url", address),
                ("task", "submit", "no_such_tool", "--wait", "-vv", "--url", address),
                ("task", "list", "-vv", "--url", address),
                ("task", "show", "nothing", "-vv", "--url", address),
            ):
                outcome = await call_process(*command)
                shown += f"{command[0]}: {outcome.status}\n{outcome.out}{outcome.err}"
            # The MCP server has the variables, of which this one is seen.
            assert starts.exists()
            for process in (daemon, agent_process, server):
                process.send_signal(signal.SIGTERM)
                ended = await process.end()
                shown += ended.out + ended.err
                assert ended.status == 0
    for words in (
        "run: 0",
        "info: 0",
        "info: 5",
        "devices: 0",
        "check: 0",
        "task: 0",
        "task: 1",
        "task: 5",
        "DEBUG",
        '"level": "info"',
    ):
        assert words in shown
    assert SECRET not in shown
    assert TOKEN not in shown


async def test_agent_that_connects_in_vain_shows_no_secret_in_its_log() -> None:
    async with open_process("agent", "ws://127.0.0.1:1/ws;key=SECRET", DEVICE, "-v") as process:
        await process.wait_for_output("connecting to ws://127.0.0.1:1/ws…", "err")
        process.send_signal(signal.SIGINT)
        outcome = await process.end()
    assert "SECRET" not in outcome.out + outcome.err
