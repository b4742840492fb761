"""``galaxy-trio tools``: the tools of a device as a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from galaxy_trio._cli.server_session import run_as_command
from galaxy_trio._cli.terminal import READABLE_WIDTH
from galaxy_trio.agent import open_agent, tool
from galaxy_trio.messages import ToolType
from galaxy_trio.server import open_server
from tests.agent.test_list_tools import RECORDED, click
from tests.cli.support.command_line import DEVICE, TOKEN, Outcome, call_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.agent import Tool
    from galaxy_trio.server import ServerTask, SessionFunction


@tool(tool_type=ToolType.DATA_COLLECTION, name="evil\x1b[31m\nname")
def evil(path: str = ".") -> None:
    """Turn it
    red.\x1b[31m

    Not shown.
    """


async def tools_of(
    *tools: Tool | Callable[..., object], session: SessionFunction = run_as_command, arguments: tuple[str, ...] = ()
) -> Outcome:
    """Run the command against a device with these tools."""
    async with (
        open_server(session=session, token=TOKEN) as server,
        open_agent(server.url, DEVICE, tools, token=TOKEN),
    ):
        return await call_process("tools", server.url, DEVICE, *arguments)


def lines_of(outcome: Outcome) -> list[str]:
    assert (outcome.status, outcome.err) == (0, "")
    return [line.rstrip() for line in outcome.out.splitlines()]


async def test_tools_are_shown_as_a_table() -> None:
    assert lines_of(await tools_of(evil, tool(lambda: None, name="plain"))) == [
        "tool                 type             parameters",
        "evil\\u001b[31m name  data_collection  [path]",
        "  Turn it red.\\u001b[31m",
        "plain                action",
    ]


async def test_namespaces_are_shown_if_there_are_several() -> None:
    table = lines_of(await tools_of(click, tool(lambda: None, name="click")))
    assert [line.split() for line in table if not line.startswith(" ")] == [
        ["tool", "namespace", "type", "parameters"],
        ["click", "ui", "action", "control", "[button]", "[double]"],
        ["default.click", "default", "action"],
    ]
    assert max(map(len, table)) <= READABLE_WIDTH


async def test_parameters_without_room_in_their_column_and_descriptions_are_wrapped_at_words_below_the_tool() -> None:
    words = "Search the notes by their words, their time and their place, and return the newest ones first."

    def search(words: str, time: str, place: str, oldest: bool = False, maximum: int = 5) -> None: ...

    search.__doc__ = words
    assert lines_of(await tools_of(search)) == [
        "tool    type    parameters",
        "search  action  …",
        "  words time place [oldest] [maximum]",
        "  Search the notes by their words, their time and their place, and return the",
        "  newest ones first.",
    ]


async def test_json_has_the_schemas() -> None:
    outcome = await tools_of(click, arguments=("--json",))
    assert (outcome.status, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    assert json.loads(outcome.out) == [RECORDED]


async def test_device_without_tools_is_said_to_have_none() -> None:
    assert await tools_of() == Outcome(0, f"{DEVICE} has no tools\n", "")


async def test_other_sessions_are_explained() -> None:
    async def echo(task: ServerTask) -> object:
        return {"echo": task.request}

    outcome = await tools_of(session=echo)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == (
        "error: the server answered the task 'list_tools' with something else than a list of tools: use galaxy-trio server, "
        "or a server whose session function returns the result of ServerTask.list_tools for this request\n"
    )


async def test_invalid_tool_is_named_and_the_others_are_shown() -> None:
    async def one_is_broken(task: ServerTask) -> object:
        return [{"tool_name": "broken"}, {**RECORDED, "input_schema": {"properties": 5, "required": 5}}]

    outcome = await tools_of(session=one_is_broken)
    assert outcome.status == 0
    assert outcome.out.splitlines()[1:] == ["click  action", "  Click on a control."]
    assert "not shown: tool 'broken': tool_key is missing" in outcome.err


@pytest.mark.parametrize("request_", ["wrong", "list_toolz"])
async def test_failed_task_is_an_error(request_: str) -> None:
    async def fail(task: ServerTask) -> object:
        raise RuntimeError(request_)

    outcome = await tools_of(session=fail)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.endswith(f"failed on device '{DEVICE}': {request_}\n")
