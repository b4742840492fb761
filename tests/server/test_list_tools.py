"""`ServerTask.list_tools`: a device's tools, for planners."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import TaskStatus
from galaxy_trio.messages import ToolInfo, ToolType
from tests.agent.test_list_tools import RECORDED
from tests.server.support.clients import answer, end_of, open_clients, start_task
from tests.server.support.commands import actions_of

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask

CLICK = ToolInfo(
    "action::click",
    "click",
    "ui",
    "action",
    description="Click on a control.",
    input_schema=cast("dict[str, JSON]", RECORDED["input_schema"]),
    output_schema=cast("dict[str, JSON]", RECORDED["output_schema"]),
)
MINIMAL: dict[str, JSON] = {"tool_key": "x::look", "tool_name": "look", "namespace": "ui", "tool_type": "x"}
LOOK = ToolInfo("x::look", "look", "ui", "x")


async def list_all(task: ServerTask) -> object:
    """A session function that returns the device's tools."""
    return [attrs.asdict(each) for each in await task.list_tools()]


async def listed(result: object, status: str = "success", error: str | None = None) -> tuple[object, object, object]:
    """The end of a task that lists the tools of a device that answers so."""
    async with open_clients(list_all) as clients:
        await start_task(clients.constellation, "s")
        [action] = actions_of(command := await clients.device.receive())
        one = {"status": status, "result": result, "error": error, "call_id": action["call_id"]}
        answer(clients.device, command, one)
        return await end_of(clients.constellation, "s")


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ((), {}),
        ((ToolType.ACTION,), {"tool_type": "action"}),
        ((None, "ui"), {"namespace": "ui"}),
        ((ToolType.DATA_COLLECTION, "ui"), {"tool_type": "data_collection", "namespace": "ui"}),
    ],
)
async def test_command_is_the_originals(
    arguments: tuple[ToolType | None, str | None], parameters: dict[str, str]
) -> None:
    async def session(task: ServerTask) -> None:
        await task.list_tools(*arguments)

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        [action] = actions_of(await clients.device.receive())
        assert action.pop("call_id")
        assert action == {"tool_name": "list_tools", "tool_type": "action", "parameters": parameters}


@pytest.mark.parametrize(
    ("result", "tools"),
    [
        ([RECORDED], [CLICK]),
        ([MINIMAL, {**MINIMAL, "unknown": 1, "title": None}], [LOOK, LOOK]),
        ([], []),
        # The original's device answers so when no tool matches.
        (None, []),
    ],
    ids=["recorded", "minimal", "empty", "null"],
)
async def test_tools_are_read(result: object, tools: list[ToolInfo]) -> None:
    assert await listed(result) == (TaskStatus.COMPLETED, [attrs.asdict(each) for each in tools], None)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (5, "tool 2: expected an object, got the integer 5"),
        ({}, "tool 2: tool_key is missing"),
        ({**MINIMAL, "tool_name": 5}, "tool 2: tool_name: expected a string, got the integer 5"),
        ({**MINIMAL, "namespace": None}, "tool 'look': namespace: expected a string, got null"),
        ({**MINIMAL, "input_schema": []}, "tool 'look': input_schema: expected an object or null, got the list []"),
    ],
    ids=["no object", "empty", "numeric name", "no namespace", "bad schema"],
)
async def test_invalid_tool_hides_no_other_and_is_named_in_the_log(
    broken: object, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, tools, _ = await listed([RECORDED, broken, MINIMAL])
    assert (status, tools) == (TaskStatus.COMPLETED, [attrs.asdict(CLICK), attrs.asdict(LOOK)])
    assert f"device 'device_001' listed an invalid {problem}" in caplog.text


@pytest.mark.parametrize(
    ("result", "status", "error", "why"),
    [
        (None, "failure", "there is no tool 'list_tools'", "there is no tool 'list_tools'"),
        (None, "failure", None, "it answered with the status failure"),
        (None, "none", None, "it answered with the status none"),
        ({"a": 1}, "success", None, "expected a list of tools, got the object {'a': 1}"),
        ("[]", "success", None, "expected a list of tools, got the string '[]'"),
    ],
)
async def test_device_that_cannot_list_its_tools_fails_the_task(
    result: object, status: str, error: str | None, why: str
) -> None:
    words = f"device 'device_001' cannot list its tools: {why}"
    assert await listed(result, status, error) == (TaskStatus.FAILED, None, words)


async def test_wait_for_the_list_is_limited(autojump_clock: trio.testing.MockClock) -> None:
    async def session(task: ServerTask) -> None:
        await task.list_tools(timeout=5)

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        began = trio.current_time()
        _, _, error = await end_of(clients.constellation, "s")
        assert error == "device 'device_001' did not answer 1 command within 5 s"
        assert trio.current_time() - began == pytest.approx(5)
