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
    TaskStatus,
)
from galaxy_trio._cli.server_session import USAGE, run_as_command
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import Command as WireCommand
from galaxy_trio.messages import CommandResult, ResultStatus, ToolType
from galaxy_trio.server import ServerTask, open_server
from tests.cli.support.command_line import (
    DEVICE,
    ask,
)
from tests.cli.support.world import INFO

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await do("lift " + json.dumps({"a": [[]] * 19_000}), DONE)
        assert passes > 3
        with pytest.raises(TaskFailed, match=r"is not a JSON object \(more than 20,000 values\)"):
            await do("lift " + json.dumps({"a": [[]] * 1_000_000}))
        nursery.cancel_scope.cancel()


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


@pytest.mark.parametrize("parameters", ['{"a": NaN, "b": 1}', '{"a": 1e999, "b": 1}', r'{"a": "\ud800", "b": 1}'])
async def test_parameters_that_are_not_strict_json_fail_the_task(
    parameters: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_server(session=run_as_command) as server,
        open_device_connection(server.url, DEVICE, system_info=INFO),
    ):
        result = await ask(server.url, f"add {parameters}", token=None)
    assert result.status is TaskStatus.FAILED
    assert result.error is not None
    assert "the text after 'add' is not a JSON object (" in result.error
    assert "Traceback" not in caplog.text
