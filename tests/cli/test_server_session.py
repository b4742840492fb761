"""The session function of ``galaxy-trio server``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio import (
    QueueFull,
    TaskFailed,
)
from galaxy_trio._cli.server_session import USAGE, run_as_command
from galaxy_trio.agent import open_agent, tool
from galaxy_trio.graph import Node, NodeResult, NodeState, make_request
from galaxy_trio.messages import Command as WireCommand
from galaxy_trio.messages import CommandResult, ResultStatus, ToolType
from galaxy_trio.server import ServerTask, open_server
from tests.cli.support.command_line import (
    DEVICE,
    ask,
)
from tests.support.passes import counting_passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.agent import Tool
    from galaxy_trio.messages import JSON


async def do(request: str, *answers: CommandResult | BaseException) -> tuple[object, list[WireCommand]]:
    """Run a task on a device that answers so; return its result and the commands that the device received."""
    commands: list[WireCommand] = []

    async def execute(batch: Sequence[WireCommand], stop_on_failure: bool, timeout: float) -> list[CommandResult]:
        await trio.lowlevel.checkpoint()
        commands.extend(batch)
        [answer] = answers
        if isinstance(answer, BaseException):
            raise answer
        return [answer]

    return await run_as_command(ServerTask("s1", request, DEVICE, "c1", None, execute)), commands


DONE = CommandResult(ResultStatus.SUCCESS, result={"height": 2})


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("echo hello", "hello"),
        ("echo  two  words ", "two  words"),
        ("\techo\tone\ntwo\n", "one\ntwo"),
        ('echo {"a": 1}', '{"a": 1}'),
        ("echo", ""),
        ("echo ", ""),
    ],
)
async def test_echo_returns_the_text_without_the_device(request_: str, text: str) -> None:
    assert await do(request_) == ({"echo": text}, [])


@pytest.mark.parametrize(
    ("tips", "results"),
    [
        ((), {"fetch": NodeResult(NodeState.COMPLETED, result="No tips available.")}),
        (("be quick",), {}),
        (("be quick",), {"fetch": NodeResult(NodeState.FAILED, error="no\npaper")}),
    ],
)
async def test_request_of_a_node_is_run_without_tips_and_results(
    tips: Sequence[str], results: dict[str, NodeResult]
) -> None:
    lift = Node("lift", 'lift\n{"height": 2}', tips=tuple(tips))
    assert await do(make_request(lift, results), DONE) == (
        {"height": 2},
        [WireCommand("lift", ToolType.ACTION, {"height": 2})],
    )


async def test_request_of_a_node_may_end_with_its_description() -> None:
    assert await do("Task Description: echo hello") == ({"echo": "hello"}, [])


@pytest.mark.parametrize(
    ("request_", "name", "parameters"),
    [
        ("look", "look", None),
        (" look \n", "look", None),
        ("lift {}", "lift", {}),
        ('lift {"height": 2}', "lift", {"height": 2}),
        ('lift\n{"height":\n2}\n', "lift", {"height": 2}),
        ('echoes {"a": null}', "echoes", {"a": None}),
    ],
)
async def test_first_word_is_the_tool_and_the_object_after_it_its_parameters(
    request_: str, name: str, parameters: dict[str, JSON] | None
) -> None:
    result, commands = await do(request_, DONE)
    assert result == {"height": 2}
    assert commands == [WireCommand(name, ToolType.ACTION, parameters)]


@pytest.mark.parametrize(
    ("request_", "name", "parameters"),
    [
        ('"take a picture"', "take a picture", None),
        ('"take a picture" {"monitor": 2}', "take a picture", {"monitor": 2}),
        (' "take a picture"{}', "take a picture", {}),
        (r'"a \"quote\" \u00e9" {}', 'a "quote" é', {}),
        ('"echo"', "echo", None),
        ('"echo" {"text": "x"}', "echo", {"text": "x"}),
        ('"device:echo"', "device:echo", None),
        ("device:echo", "echo", None),
        ('device:echo {"text": "x"}', "echo", {"text": "x"}),
        ('device:"take a picture" {}', "take a picture", {}),
        ("device:look", "look", None),
        ("device:device:look", "device:look", None),
    ],
)
async def test_quotes_and_a_prefix_name_any_tool_of_the_device(
    request_: str, name: str, parameters: dict[str, JSON] | None
) -> None:
    result, commands = await do(request_, DONE)
    assert result == {"height": 2}
    assert commands == [WireCommand(name, ToolType.ACTION, parameters)]


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ('"take a picture', "the quote before the tool's name is not closed"),
        ('device:"', "the quote before the tool's name is not closed"),
        ('"" {}', "the tool's name is empty"),
        ("device:", "the tool's name is empty"),
        ("device: ", "the tool's name is empty"),
        ("take a picture", "the text after 'take' is not a JSON object"),
        ('"take a picture" now', "the text after 'take a picture' is not a JSON object"),
    ],
)
async def test_name_that_cannot_be_read_fails_with_the_usage(request_: str, problem: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do(request_)
    assert str(failed.value).startswith(problem)
    assert str(failed.value).endswith(f": {USAGE}")


async def test_tool_whose_name_has_spaces_or_is_a_built_in_command_is_called_on_an_agent() -> None:
    def say(text: str) -> list[str]:
        return [text]

    named: list[Tool] = [tool(lambda: "picture", name="take a picture"), tool(say, name="echo")]
    async with open_server(session=run_as_command) as server, open_agent(server.url, DEVICE, named):
        for request, result in (
            ('"take a picture"', "picture"),
            ('device:echo {"text": "x"}', ["x"]),
            ('echo {"text": "x"}', {"echo": '{"text": "x"}'}),
        ):
            assert (await ask(server.url, request, token=None)).unwrap() == result
        wrong = await ask(server.url, '"take picture"', token=None)
        assert wrong.error == "there is no tool 'take picture' on this device; did you mean 'take a picture'?"


@pytest.mark.parametrize("request_", ["", " \t\n"])
async def test_empty_request_fails_with_the_usage(request_: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do(request_)
    assert str(failed.value) == f"the request is empty: {USAGE}"


@pytest.mark.parametrize(
    "parameters", ["{", "x", "1", '"a"', "null", "[1]", "{} {}", "{'a': 1}", '{"a": ' + "[" * 100_000, "1" * 5_000]
)
async def test_parameters_that_are_not_an_object_fail_before_anything_is_sent(parameters: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do(f"lift {parameters}")
    assert str(failed.value).startswith("the text after 'lift' is not a JSON object")
    assert str(failed.value).endswith(f": {USAGE}")
    assert len(str(failed.value)) < 300


async def test_many_parameters_are_read_while_other_tasks_run_and_too_many_are_refused() -> None:
    async with counting_passes() as passes:
        await do("lift " + json.dumps({"a": [[]] * 19_000}), DONE)
        assert passes.count > 2
        with pytest.raises(TaskFailed, match=r"is not a JSON object \(more than 20,000 values\)"):
            await do("lift " + json.dumps({"a": [[]] * 1_000_000}))


async def test_error_does_not_repeat_a_long_name() -> None:
    with pytest.raises(TaskFailed) as failed:
        await do("x" * 1_000_000 + " {")
    assert len(str(failed.value)) < 300


@pytest.mark.parametrize(
    ("answer", "words", "result"),
    [
        (CommandResult(ResultStatus.FAILURE, error="no arm", result=[1]), "no arm", [1]),
        (CommandResult(ResultStatus.FAILURE), "the device replied with status failure and gave no reason", None),
        (CommandResult(ResultStatus.NONE), "the device replied with status none and gave no reason", None),
        (QueueFull("it has enough to do"), "it has enough to do", None),
    ],
)
async def test_failed_command_fails_the_task_with_its_reason(
    answer: CommandResult | BaseException, words: str, result: JSON
) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do("lift", answer)
    assert (str(failed.value), failed.value.result) == (words, result)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30)
@given(parameters=st.dictionaries(st.text(), JSON_VALUES, max_size=3), ascii_only=st.booleans())
async def test_parameters_reach_the_device_unchanged(parameters: dict[str, JSON], ascii_only: bool) -> None:
    _, commands = await do(f"lift {json.dumps(parameters, ensure_ascii=ascii_only)}", DONE)
    assert [command.parameters for command in commands] == [parameters]


@given(st.text())
async def test_any_request_returns_a_result_or_fails(request_: str) -> None:
    try:
        await do(request_, DONE)
    except TaskFailed as failed:
        why = str(failed)
    else:
        why = USAGE
    assert USAGE in why


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e999, "b": 1}', "the number '1e999' is out of range"),
        (r'{"a": "\ud800", "b": 1}', "a lone surrogate in a string"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is given twice in b"),
    ],
)
async def test_parameters_are_strict_json(parameters: str, reason: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        await do(f"add {parameters}", DONE)
    assert str(failed.value) == f"the text after 'add' is not a JSON object ({reason}): {USAGE}"
