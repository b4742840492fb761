"""The tools of ``galaxy-trio agent``: functions, example tools and MCP servers."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path

import pytest
import trio

from galaxy_trio import (
    ToolError,
)
from galaxy_trio._cli.server_session import run_as_command
from galaxy_trio.agent.example_tools import add, list_directory, where_am_i
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
    tool_options,
    with_command,
)
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS


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
        ([EXAMPLE_TOOLS], "3 tools: add, where_am_i, list_directory", 'add {"a": 2, "b": 0.5}', 2.5),
        ([], "no tools", "echo still there", {"echo": "still there"}),
    ],
)
@with_command
async def test_agent_offers_the_named_functions_also_from_the_current_directory(
    command: Command, folder: Path, names: list[str], listed: str, request_: str, result: object
) -> None:
    async with open_server(session=run_as_command, token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tool_options(*names))
        assert await command.first_line() == f"registered as {DEVICE} with {listed}"
        assert (await ask(server.url, request_)).unwrap() == result
        outcome = await command.terminate()
    assert (outcome.status, outcome.out.count("\n")) == (0, 1)
    assert TOKEN not in outcome.err


@with_command
async def test_agent_lists_at_most_50_tools(command: Command, folder: Path) -> None:
    async with open_server(token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tool_options("many"))
        line = await command.first_line()
        assert line.startswith(f"registered as {DEVICE} with 60 tools: tool_00, ")
        assert line.endswith(", tool_49, …")
        await command.terminate()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["nothing_here"], "'nothing_here' cannot be imported: ModuleNotFoundError: No module named 'nothing_here'"),
        (["good:wrok"], "module 'good' has no attribute 'wrok'; did you mean 'work'?\n"),
        (["good:robot.lift_it"], "has no attribute 'lift_it'; did you mean 'lift'?\n"),
        (["good.py"], "'good.py' cannot be imported: give the name of the module, without .py"),
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
        (["other"], "the module 'other' has no functions decorated with @tool: name a function, as in other:FUNCTION"),
        (["good:number"], "an object with the members of Tool"),
        (["good:subprocess"], "<module 'subprocess'"),
        (["good:unnamed"], "an object with the members of Tool"),
        (["good:yields"], "tool 'yields' "),
        (["good:takes_anything"], "takes_anything"),
        (["good", "other:work"], "two tools have the name 'work': "),
        (["\udcff"], "UTF-8"),
    ],
)
def test_invalid_tool_is_one_sentence_and_exits_with_2(call: Call, folder: Path, names: list[str], words: str) -> None:
    outcome = call("agent", NO_SERVER, DEVICE, *tool_options(*names))
    assert (outcome.status, outcome.out) == (2, "")
    assert is_one_sentence(outcome)
    assert words in outcome.err


def test_traceback_of_a_failed_import_is_shown_with_v(call: Call, folder: Path) -> None:
    output = call("agent", NO_SERVER, DEVICE, *tool_options("breaks"), "-v").err
    assert 'breaks.py", line 1' in output
    assert output.endswith("\nerror: the tool 'breaks' cannot be imported: ZeroDivisionError: division by zero\n")


def test_ctrl_c_while_tools_are_imported_exits_with_130(call: Call, folder: Path) -> None:
    assert call("agent", NO_SERVER, DEVICE, *tool_options("interrupted")).status == 130


async def test_example_tools_return_what_they_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@with_command
async def test_agent_offers_its_own_tools_and_then_those_of_an_mcp_server(command: Command) -> None:
    program = shlex.join([sys.executable, str(ROOT / "tests" / "agent" / "support" / "mcp_server.py")])
    async with open_server(session=run_as_command, token=TOKEN) as server:
        command.start("agent", server.url, DEVICE, *tool_options(f"{EXAMPLE_TOOLS}:add"), "--mcp", f"real={program}")
        first = await command.first_line()
        assert first.startswith(f"registered as {DEVICE} with 12 tools: add, real.add, process_id, wait, ")
        assert (await ask(server.url, 'add {"a": 2, "b": 0.5}')).unwrap() == 2.5
        assert (await ask(server.url, 'point {"x": 1, "y": 2}')).unwrap() == {"x": 1, "y": 2}
        assert (await ask(server.url, 'real.add {"a": 2, "b": 3}')).unwrap() == "5"
        process_id = int(str((await ask(server.url, "process_id")).unwrap()))
        outcome = await command.terminate()
    assert outcome.status == 0
    assert ", with 11 tools\n" in outcome.err
    assert "tool 'add' of 'real' is called 'real.add', because 'default' has a tool of the same name" in outcome.err
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ([""], "has no command"),
        (["a="], "has no command"),
        (["it's"], "cannot be split into words"),
        (["a=/no/such/program"], "MCP server 'a' cannot be started: there is no such program"),
        (["a=/no/such/one", "a=/no/such/other"], "two MCP servers are named 'a': "),
        (["/x/python a", "/y/python b"], "two MCP servers are named 'python'"),
    ],
)
def test_mcp_server_that_cannot_start_is_one_sentence_and_exits_with_2(
    call: Call, commands: list[str], words: str
) -> None:
    outcome = call("agent", NO_SERVER, DEVICE, "-q", *(word for command in commands for word in ("--mcp", command)))
    assert (outcome.status, outcome.out, is_one_sentence(outcome)) == (2, "", True)
    assert words in outcome.err
