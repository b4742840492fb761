"""A session of the original runs on this package's agent: it lists the tools, makes its prompt, and sends its plans."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import trio

from galaxy_trio import open_connection
from galaxy_trio.agent import Tool, open_agent, tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import DeviceInfo, ToolType
from galaxy_trio.server import ServerTask, open_server
from tests.agent.support.original_reader import prompt_of, read_as_the_original
from tests.end_to_end.support.original_server import open_original_server
from tests.support.waiting import SECONDS

DEVICE = "linux_agent_1"
INFO = DeviceInfo(DEVICE, "linux")


@tool
async def execute_command(
    command: Annotated[str, "The shell command to run."], timeout: Annotated[int, "In seconds."] = 30
) -> dict[str, str]:
    """Run a shell command."""
    await trio.lowlevel.checkpoint()
    if command == "false":
        raise ToolError("it exited with 1")
    return {"stdout": command, "timeout": str(timeout)}


@tool
async def click(button: Literal["left", "right"] = "left") -> str:
    """Click."""
    await trio.lowlevel.checkpoint()
    return button


@tool(tool_type=ToolType.DATA_COLLECTION)
def get_system_info() -> str:
    """Describe the system."""
    return "linux"


TOOLS: list[Tool] = [execute_command, click, get_system_info]


async def test_session_of_the_original_lists_the_tools_and_sends_its_plans() -> None:
    with trio.fail_after(SECONDS):
        async with open_original_server() as (url, connections), open_agent(url, DEVICE, TOOLS, system_info=INFO):
            server = await connections.receive()

            [listing] = await server.execute(
                {"tool_name": "list_tools", "parameters": {"tool_type": "action"}, "tool_type": "action"}
            )
            assert (listing["status"], listing.get("error")) == ("success", None)
            tools = read_as_the_original(listing["result"])
            assert [(each["tool_key"], each["namespace"]) for each in tools] == [
                ("action::execute_command", "default"),
                ("action::click", "default"),
            ]
            assert prompt_of(tools[0]).splitlines() == [
                "execute_command: Run a shell command.",
                "- command (string, required): The shell command to run. Default: N/A",
                "- timeout (integer, optional): In seconds. Default: 30",
                "Returns: ",
            ]

            [seen] = await server.execute({"tool_name": "get_system_info", "tool_type": "data_collection"})
            assert (seen["status"], seen["result"]) == ("success", "linux")

            plan: list[dict[str, object]] = [
                {"tool_name": "execute_command", "parameters": {"command": "ls"}, "tool_type": "action"},
                {"tool_name": "", "tool_type": "action"},
                {"tool_name": "execute_command", "parameters": {"command": "false"}, "tool_type": "action"},
                {"tool_name": "click", "parameters": {}, "tool_type": "action"},
            ]
            results = await server.execute(*plan)
            assert [each["status"] for each in results] == ["success", "success", "failure", "skipped"]
            assert [each.get("result") for each in results] == [
                {"stdout": "ls", "timeout": "30"},
                "No action taken.",
                None,
                None,
            ]
            assert results[2]["error"] == "it exited with 1"
            assert "skipped" in results[3]["error"]

            # An unknown tool is a failure too, and the next batch runs.
            results = await server.execute({"tool_name": "clik", "tool_type": "action"}, plan[3])
            assert [each["status"] for each in results] == ["failure", "skipped"]
            [clicked] = await server.execute(plan[3])
            assert clicked["result"] == "left"
            await server.send(type="task_end", status="completed", session_id="s1")


async def test_session_of_this_packages_server_plans_with_the_listed_tools_over_a_socket() -> None:
    async def plan(task: ServerTask) -> object:
        tools = await task.list_tools(ToolType.ACTION)
        assert {each.namespace for each in await task.list_tools()} == {"default"}
        schema = cast("dict[str, dict[str, object]]", tools[1].input_schema)
        return [each.tool_name for each in tools], schema["properties"]["button"]

    with trio.fail_after(SECONDS):
        async with (
            open_server(session=plan) as server,
            open_agent(server.url, DEVICE, TOOLS, system_info=INFO),
            open_connection(server.url, DEVICE) as connection,
        ):
            result = await connection.run_task("plan")
    assert result.unwrap() == [
        ["execute_command", "click"],
        {"enum": ["left", "right"], "type": "string", "title": "Button", "default": "left"},
    ]
