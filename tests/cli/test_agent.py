"""``galaxy-trio agent``: the tools that it finds, what it says of the server and to the person, and how it ends."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shlex
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from galaxy_trio import TaskStatus, ToolError
from galaxy_trio._cli.server_session import run_as_command
from galaxy_trio.agent.example_tools import add, list_directory, where_am_i
from galaxy_trio.messages import Command as WireCommand
from galaxy_trio.messages import ToolType
from galaxy_trio.server import open_server
from tests.cli.support.command_line import (
    DEVICE,
    NOBODY,
    TOKEN,
    Call,
    Command,
    Outcome,
    ask,
    beside_a_command,
    caller,
    is_one_sentence,
    open_process,
    set_environment,
)
from tests.connection.support.raw_peer import open_raw_peer
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS, close_without_a_limit

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask

EXAMPLES = "galaxy_trio.agent.example_tools"

MODULES = {
    "good.py": """
        import subprocess
        from galaxy_trio.agent import tool
        from galaxy_trio.messages import ToolType

        @tool
        def work(): return "done"

        @tool(name="pay")
        async def _pay(amount: int): return amount

        also_work = work

        def plain(text: str): return text.upper()

        def yields(): yield 1

        def takes_anything(*things): return things

        class Robot:
            def lift(self, height: int): return [height]

        class Arm:
            name, namespace, tool_type, timeout = "arm", None, ToolType.ACTION, 1.0
            async def call(self, parameters): return parameters

        class Unnamed(Arm):
            name = 3

        robot, arm, unnamed, number = Robot(), Arm(), Unnamed(), 7
        """,
    "other.py": """
        def work(): return "other work"
        """,
    "package/__init__.py": "",
    "package/inner.py": """
        def deep(): return "deep"
        """,
    "many.py": """
        from galaxy_trio.agent import tool
        for number in range(60):
            globals()[f"tool_{number:02}"] = tool(lambda: None, name=f"tool_{number:02}")
        """,
    "quits.py": "raise SystemExit('\\x1b[31mnot today\\nnor tomorrow')",
    "leaves.py": "import sys; sys.exit()",
    "breaks.py": "1 / 0",
    "asserts.py": "assert False",
    "interrupted.py": "raise KeyboardInterrupt",
    "misspelt.py": "def f(:",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The current directory, with modules in it that nothing remembers afterwards."""
    for name, text in MODULES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(re.sub("^        ", "", text, flags=re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    importlib.invalidate_caches()
    yield tmp_path
    for name in MODULES:
        for module in (name.removesuffix(".py").replace("/", "."), name.partition("/")[0]):
            sys.modules.pop(module, None)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""
    return caller(monkeypatch, capsys)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that runs beside the test."""
    set_environment(monkeypatch)
    return Command(monkeypatch)


def tools(*names: str) -> list[str]:
    return [word for name in names for word in ("--tools", name)]


async def stop(command: Command) -> Outcome:
    command.send_signal(signal.SIGTERM)
    return await command.end()


# ---- its tools


@pytest.mark.parametrize(
    ("names", "listed", "request_", "result"),
    [
        (["good"], "2 tools: work, pay", 'pay {"amount": 3}', 3),
        (["good:plain"], "1 tool: plain", 'plain {"text": "ah"}', "AH"),
        (["good:robot.lift"], "1 tool: lift", 'lift {"height": 2}', [2]),
        (["good:arm"], "1 tool: arm", 'arm {"a": 1}', {"a": 1}),
        (["good:_pay"], "1 tool: pay", 'pay {"amount": 3}', 3),
        (["package.inner:deep"], "1 tool: deep", "deep", "deep"),
        (["good", "good:plain", "good:work", "good"], "3 tools: work, pay, plain", "work", "done"),
        ([EXAMPLES], "3 tools: add, where_am_i, list_directory", 'add {"a": 2, "b": 0.5}', 2.5),
        ([], "no tools", "echo still there", {"echo": "still there"}),
    ],
)
@beside_a_command
async def test_it_offers_the_functions_that_it_is_told_of_from_the_current_directory_too(
    command: Command, folder: Path, names: list[str], listed: str, request_: str, result: object
) -> None:
    async with open_server(session=run_as_command, token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tools(*names))
        assert await command.line() == f"registered as {DEVICE} with {listed}"
        assert (await ask(server.url, request_)).unwrap() == result
        outcome = await stop(command)
    assert (outcome.status, outcome.out.count("\n")) == (0, 1)
    assert TOKEN not in outcome.err


@beside_a_command
async def test_of_very_many_tools_it_names_the_first(command: Command, folder: Path) -> None:
    async with open_server(token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tools("many"))
        line = await command.line()
        assert line.startswith(f"registered as {DEVICE} with 60 tools: tool_00, ")
        assert line.endswith(", tool_49, …")
        await stop(command)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["nothing_here"], "'nothing_here' cannot be imported: ModuleNotFoundError: No module named 'nothing_here'"),
        (["good:nothing"], "'good:nothing' cannot be imported: AttributeError: "),
        (["good:robot.nothing"], "'good:robot.nothing' cannot be imported: AttributeError: "),
        ([""], "'' cannot be imported: ValueError: "),
        ([":work"], "':work' cannot be imported: ValueError: "),
        ([".good:work"], "'.good:work' cannot be imported: TypeError: "),
        (["breaks"], "'breaks' cannot be imported: ZeroDivisionError: division by zero"),
        (["asserts"], "'asserts' cannot be imported: AssertionError\n"),
        (["misspelt:f"], "'misspelt:f' cannot be imported: SyntaxError: "),
        (["quits"], "'quits' cannot be imported: SystemExit: \\u001b[31mnot today nor tomorrow\n"),
        (["leaves:f"], "'leaves:f' cannot be imported: SystemExit\n"),
        (["other"], "the module 'other' has no functions that @tool was put on: name one, as in other:FUNCTION"),
        (["good:number"], "7 is not a tool: give a function, or an object with the members of Tool"),
        (["good:subprocess"], "<module 'subprocess'"),
        (["good:unnamed"], "is not a tool: give a function, or an object with the members of Tool"),
        (["good:yields"], "tool 'yields' is a generator"),
        (["good:takes_anything"], "takes_anything"),
        (["good", "other:work"], "two tools have the name 'work': rename one of them"),
        (["\udcff"], "UTF-8"),
    ],
)
def test_what_is_no_tool_is_one_sentence_on_stderr_and_status_2(
    call: Call, folder: Path, names: list[str], words: str
) -> None:
    outcome = call("agent", NOBODY, DEVICE, *tools(*names))
    assert (outcome.status, outcome.out) == (2, "")
    assert is_one_sentence(outcome)
    assert words in outcome.err


def test_where_a_module_breaks_is_shown_on_demand(call: Call, folder: Path) -> None:
    said = call("agent", NOBODY, DEVICE, *tools("breaks"), "-v").err
    assert 'breaks.py", line 1' in said
    assert said.endswith("\nerror: the tool 'breaks' cannot be imported: ZeroDivisionError: division by zero\n")


def test_ctrl_c_while_tools_are_imported_exits_with_130(call: Call, folder: Path) -> None:
    assert call("agent", NOBODY, DEVICE, *tools("interrupted")).status == 130


async def test_the_example_tools_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("")
    with trio.fail_after(SECONDS):
        assert await add.call({"a": 2, "b": 0.5}) == 2.5
        assert await add.call({"a": 2, "b": 3}) == 5
        assert await where_am_i.call({}) == {
            "host": platform.node(),
            "system": platform.platform(),
            "folder": str(Path.cwd()),
        }
        assert await list_directory.call({}) == ["a", "b"]
        assert await list_directory.call({"path": "b"}) == []
        for path, why in (("c", "No such file or directory"), ("a", "Not a directory")):
            with pytest.raises(ToolError, match=f"^cannot list '{path}': {why}$"):
                await list_directory.call({"path": path})
    assert [each.tool_type for each in (where_am_i, list_directory)] == [ToolType.DATA_COLLECTION] * 2


# ---- MCP servers


@beside_a_command
async def test_it_offers_the_tools_of_an_mcp_server_after_its_own(command: Command) -> None:
    program = shlex.join([sys.executable, str(ROOT / "tests" / "agent" / "support" / "mcp_server.py")])
    async with open_server(session=run_as_command, token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tools(f"{EXAMPLES}:add"), "--mcp", f"real={program}")
        assert (await command.line()).startswith(f"registered as {DEVICE} with 11 tools: add, process_id, wait, ")
        assert (await ask(server.url, 'add {"a": 2, "b": 0.5}')).unwrap() == 2.5
        assert (await ask(server.url, 'point {"x": 1, "y": 2}')).unwrap() == {"x": 1, "y": 2}
        process_id = int(str((await ask(server.url, "process_id")).unwrap()))
        outcome = await stop(command)
    assert outcome.status == 0
    assert " MCP server 'real' is running, with 11 tools\n" in outcome.err
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ([""], "has no command"),
        (["a="], "empty"),
        (["it's"], "cannot be split into words"),
        (["a=/no/such/program"], "/no/such/program"),
        (["a=/no/such/one", "a=/no/such/other"], "two MCP servers are named 'a': rename one of them"),
        (["/x/python a", "/y/python b"], "two MCP servers are named 'python'"),
    ],
)
def test_an_mcp_server_that_cannot_be_started_is_one_sentence_and_status_2(
    call: Call, commands: list[str], words: str
) -> None:
    outcome = call("agent", NOBODY, DEVICE, "-q", *(word for command in commands for word in ("--mcp", command)))
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert words in outcome.err


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://x", "ws://"), ("ws://person:secret@x", "no user and password"), (f"ws://x?token={TOKEN}", "token")],
)
def test_a_url_that_cannot_be_right_is_said_before_anything_starts_and_no_secret_is_shown(
    call: Call, url: str, words: str
) -> None:
    outcome = call("agent", url, DEVICE, "--mcp", "/no/such/program")
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert words in outcome.err
    assert "secret" not in outcome.err


# ---- the server


def test_nobody_there_and_no_retries_is_one_sentence_and_status_3(call: Call) -> None:
    outcome = call("agent", NOBODY, DEVICE, "--max-retries", "0", "-q")
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (3, "", True)
    assert "connection refused" in outcome.err


@beside_a_command
async def test_a_certificate_that_is_not_trusted_ends_it_with_status_3(command: Command) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # it can also be another library's context
    async with open_server(token=TOKEN, ssl_context=context) as server:
        command.start("agent", server.url, DEVICE)
        outcome = await command.end()
    assert (outcome.status, outcome.out) == (3, "")
    assert "certificate" in outcome.err.splitlines()[-1]


@beside_a_command
async def test_a_wrong_token_is_a_warning_and_tried_again_for_somebody_may_mend_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALAXY_TRIO_TOKEN", "wr0ng")
    async with open_server(token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, "-q")
        said = await command.said("trying again in 300.0 s\n")
        assert " WARNING " in said
        assert "403" in said
        outcome = await stop(command)
    assert (outcome.status, outcome.out) == (0, "")
    assert "wr0ng" not in outcome.err


@beside_a_command
async def test_a_name_that_somebody_has_is_said_and_tried_again(command: Command) -> None:
    async with open_server(token=TOKEN) as server, open_process("agent", server.url, DEVICE) as first:
        await first.said("registered as")
        command.start("agent", server.url, DEVICE)
        said = await command.said("trying again in 5.0 s\n")
        assert "already registered" in said.lower()
        outcome = await stop(command)
        assert server.devices == [DEVICE]
        first.send_signal(signal.SIGTERM)
        assert (await first.end()).status == 0
    assert (outcome.status, outcome.out) == (0, "")


@beside_a_command
async def test_when_the_server_comes_back_it_is_registered_again_and_says_so(command: Command) -> None:
    async with open_server(token=TOKEN) as server:
        url, port = server.url, int(server.url.split(":")[2].partition("/")[0])
        command.start("agent", url, DEVICE)
        await command.line()
    await command.said(f"device {DEVICE!r} lost its connection: ")
    async with open_server(port=port, token=TOKEN, session=run_as_command) as server:
        await command.said(f" registered with the server of device {DEVICE!r}\n", times=2)
        assert server.devices == [DEVICE]
        outcome = await stop(command)
    assert (outcome.status, outcome.out.count("\n")) == (0, 1)
    assert "Traceback" not in outcome.err


# ---- what it says of calls


@beside_a_command
async def test_calls_are_told_on_stderr_and_nobodys_text_does_anything_to_the_terminal(
    command: Command, folder: Path
) -> None:
    evil = "x\n00:00:00 forged\x1b]0;title\x07\u202e"
    device = f"{DEVICE}\n\x1b[31m"

    async def session(task: ServerTask) -> object:
        names = [evil, "list_directory", "add"]
        parameters: list[dict[str, JSON] | None] = [None, {"path": evil}, {"a": 1, "b": 1, evil: evil}]
        batch = [WireCommand(name, ToolType.ACTION, each) for name, each in zip(names, parameters, strict=True)]
        return [result.status.value for result in await task.execute(batch)]

    async with open_server(session=session, token=TOKEN) as server:
        command.start("agent", server.url, device, *tools(EXAMPLES))
        assert (await command.line()).startswith(f"registered as {DEVICE} \\u001b[31m with 3 tools: ")
        assert (await ask(server.url, "go", device=device)).unwrap() == ["failure"] * 3
        outcome = await stop(command)
    assert outcome.status == 0
    assert " tool 'list_directory': cannot list 'x" in outcome.err
    assert "there is no tool" in outcome.err
    assert [line for line in outcome.err.splitlines() if line.startswith("00:00:00")] == []
    for harmful in ("\x1b", "\x07", "\u202e"):
        assert harmful not in outcome.err


@beside_a_command
async def test_a_tool_that_breaks_is_told_with_its_traceback_and_the_device_lives_on(
    command: Command, folder: Path
) -> None:
    (folder / "fragile.py").write_text("def fall(): return 1 / 0\ndef stand(): return 'up'")
    importlib.invalidate_caches()
    async with open_server(session=run_as_command, token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tools("fragile:fall", "fragile:stand"), "-q")
        await command.line()
        failed = await ask(server.url, "fall")
        assert (failed.status, failed.error) == (TaskStatus.FAILED, "ZeroDivisionError: division by zero")
        assert (await ask(server.url, "stand")).unwrap() == "up"
        outcome = await stop(command)
    del sys.modules["fragile"]
    assert " WARNING galaxy_trio.agent.command_runner: tool 'fall' raised\n" in outcome.err
    assert 'fragile.py", line 1, in fall' in outcome.err
    assert "stand" not in outcome.err


# ---- how it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@beside_a_command
async def test_a_signal_ends_it_in_good_order_with_status_0(command: Command, number: int) -> None:
    with trio.fail_after(SECONDS):
        async with open_raw_peer() as peer:
            command.start("agent", peer.url, DEVICE)
            await command.line()
            command.send_signal(number)
            await peer.read_until(sys.maxsize)
            assert peer.closed_with == 1000
            await peer.hang_up()
            outcome = await command.end()
    assert outcome.status == 0
    assert "error" not in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@beside_a_command
async def test_a_signal_before_it_is_registered_ends_it_at_once_with_status_0(command: Command, number: int) -> None:
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


@beside_a_command
async def test_a_second_signal_ends_it_at_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    close_without_a_limit(monkeypatch)
    with trio.fail_after(SECONDS):
        async with open_raw_peer() as peer:
            command.start("agent", peer.url, DEVICE)
            await command.line()
            command.send_signal(signal.SIGTERM)
            await peer.read_until(sys.maxsize)
            # Which answers no close.
            command.send_signal(signal.SIGINT)
            outcome = await command.end()
    assert outcome.status == 0
    assert "Traceback" not in outcome.err


async def test_without_a_reader_of_stderr_it_runs_all_the_same() -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    try:
        async with (
            open_server(session=run_as_command, token=TOKEN) as server,
            open_process("agent", server.url, DEVICE, *tools(EXAMPLES), stderr=writing_end) as process,
        ):
            await process.said(f"registered as {DEVICE} with 3 tools")
            assert (await ask(server.url, 'add {"a": 1, "b": 1}')).unwrap() == 2
            process.send_signal(signal.SIGTERM)
            assert (await process.end()).status == 0
    finally:
        os.close(writing_end)


# ---- all three


README = ROOT / "README.md"
README_URL = "ws://127.0.0.1:5000/ws"


def three_terminals() -> list[tuple[list[str], str]]:
    """The commands that the README has for three terminals, in order, each with what it shows of its output."""
    section = README.read_text("utf-8").partition("### On three terminals\n")[2].partition("\n#")[0]
    blocks: list[str] = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    entries = [entry for block in blocks for entry in block.split("$ ")[1:]]
    commands: list[tuple[list[str], str]] = []
    for entry in entries:
        line, _, output = entry.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/galaxy-trio"
        commands.append((arguments, output))
    return commands


async def test_what_the_readme_shows_on_three_terminals_is_what_happens() -> None:
    (serve, served), (be_device, registered), *requests = three_terminals()
    assert (serve[0], be_device[0], {arguments[0] for arguments, _ in requests}) == ("server", "agent", {"run"})
    async with open_process(*serve, "--port", "0", token=None) as server:
        said = await server.said("\n")
        url = said.strip()
        assert said.replace(url, README_URL) == served

        def here(arguments: list[str]) -> list[str]:
            assert README_URL in arguments
            return [url if argument == README_URL else argument for argument in arguments]

        async with open_process(*here(be_device), token=None) as agent:
            assert await agent.said("\n") == registered
            for arguments, output in requests:
                async with open_process(*here(arguments), token=None) as client:
                    outcome = await client.end()
                assert (outcome.status, outcome.err) == (0, "")
                assert without_the_machine(outcome.out) == without_the_machine(output)
            for process in (agent, server):
                process.send_signal(signal.SIGINT)
                assert (await process.end()).status == 0


def without_the_machine(text: str) -> str:
    """A command's output without what every machine has its own of."""
    return re.sub(r'("(?:host|system|folder)": )".*"', r'\1"…"', text)
