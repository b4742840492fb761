"""The command ``list_tools``, from whose result planners make their prompts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import attrs
import pytest
import trio

from galaxy_trio.agent import Tool, ToolDescription, tool
from galaxy_trio.messages import JSON, ResultStatus, ToolType
from tests.agent.support.agent_server import call, open_commanded_agent, results_of
from tests.agent.support.original_reader import prompt_of, read_as_the_original
from tests.agent.support.tools import Own
from tests.agent.test_tool_sources import ChangingSource

if TYPE_CHECKING:
    from collections.abc import Callable


@tool(namespace="ui")
async def click(
    control: str, button: Literal["left", "right"] = "left", double: bool = False
) -> Annotated[str, "What happened."]:
    """Click on a control.

    Args:
        control: The label of the control.
    """
    await trio.lowlevel.checkpoint()
    return f"{button} {control} {double}"


@tool(tool_type=ToolType.DATA_COLLECTION)
async def look() -> None:
    await trio.lowlevel.checkpoint()


RECORDED: dict[str, JSON] = {
    "tool_key": "action::click",
    "tool_name": "click",
    "title": None,
    "namespace": "ui",
    "tool_type": "action",
    "description": "Click on a control.",
    "input_schema": {
        "type": "object",
        "properties": {
            "control": {"type": "string", "title": "Control", "description": "The label of the control."},
            "button": {"type": "string", "enum": ["left", "right"], "default": "left", "title": "Button"},
            "double": {"type": "boolean", "default": False, "title": "Double"},
        },
        "required": ["control"],
    },
    "output_schema": {
        "type": "object",
        "properties": {"result": {"type": "string", "title": "Result", "description": "What happened."}},
        "required": ["result"],
    },
    "meta": None,
    "annotations": None,
}
"""What a real device answers about `click`."""


async def listed(*tools: Tool | Callable[..., Any], sources: Any = (), **parameters: object) -> list[dict[str, Any]]:
    """The tools that an agent with these tools lists, checked as the original's agents do."""
    async with open_commanded_agent(tools, tool_sources=sources) as (peer, _, _):
        [result] = await results_of(peer, call("list_tools", **parameters))
        assert (result.status, result.error, result.namespace) == (ResultStatus.SUCCESS, None, None)
        return read_as_the_original(result.result)


def names_in(tools: list[dict[str, Any]]) -> list[str]:
    return [each["tool_name"] for each in tools]


async def test_answer_is_the_recorded_one() -> None:
    assert await listed(click, look, tool_type="action") == [RECORDED]


async def test_tools_are_listed_by_type_and_namespace() -> None:
    assert names_in(await listed(click, look)) == ["click", "look"]
    assert names_in(await listed(click, look, tool_type=None, namespace=None)) == ["click", "look"]
    assert names_in(await listed(click, look, tool_type="data_collection")) == ["look"]
    assert names_in(await listed(click, look, namespace="ui")) == ["click"]
    assert names_in(await listed(click, look, namespace="default")) == ["look"]
    assert await listed(click, look, tool_type="action", namespace="default") == []
    assert await listed(click, tool_type="gesture") == []
    assert await listed() == []


async def test_list_tools_itself_is_listed_for_each_type_if_it_is_asked_for() -> None:
    tools = await listed(look, remove_meta=False)
    keys = [each["tool_key"] for each in tools]
    assert keys == ["action::list_tools", "data_collection::list_tools", "data_collection::look"]
    [meta] = await listed(look, remove_meta=False, tool_type="action")
    assert meta["namespace"] == "default"
    assert "remove_meta (boolean, optional): Leave out list_tools itself. Default: True" in prompt_of(meta)


async def test_wrong_parameters_are_named() -> None:
    async with open_commanded_agent([click]) as (peer, _, _):
        [result] = await results_of(peer, call("list_tools", tooltype="action"))
        assert result.error == (
            "wrong parameters for tool 'list_tools': "
            "'tooltype' is not known: expected no more than tool_type, namespace, remove_meta"
        )


async def test_own_tool_without_a_description_is_listed_by_its_name() -> None:
    [own] = await listed(Own())
    assert own == {
        **dict.fromkeys(own),
        "tool_key": "action::own",
        "tool_name": "own",
        "namespace": "mine",
        "tool_type": "action",
    }
    [unnamed] = await listed(Own(namespace=None))
    assert unnamed["namespace"] == "default"


@attrs.define
class Described(Own):
    """A tool of a source, with its own description."""

    description: Any = None


async def test_description_of_a_source_is_passed_on() -> None:
    schema: dict[str, JSON] = {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {}}}
    description = ToolDescription(
        title="Own tool",
        text="Do it.",
        input_schema=schema,
        output_schema={"type": "object", "description": "All."},
        meta={"by": "me"},
        annotations={"readOnlyHint": False},
    )
    [own] = await listed(sources=[ChangingSource(Described(description=description))])
    assert own == {
        "tool_key": "action::own",
        "tool_name": "own",
        "namespace": "mine",
        "tool_type": "action",
        "title": "Own tool",
        "description": "Do it.",
        "input_schema": schema,
        "output_schema": {"type": "object", "description": "All."},
        "meta": {"by": "me"},
        "annotations": {"readOnlyHint": False},
    }
    assert prompt_of(own) == "own: Do it.\n- x (unknown, required):  Default: N/A\nReturns: All."


async def test_another_kind_of_description_is_not_used() -> None:
    [own] = await listed(Described(description="my own words"))
    assert own["description"] is None


async def test_schemas_that_are_no_objects_become_equal_objects_because_prompts_are_made_of_their_members() -> None:
    schema: dict[str, JSON] = {"type": "object", "properties": {"any": True, "none": False, "one": {"type": "null"}}}
    [own] = await listed(Described(description=ToolDescription(input_schema=schema)))
    assert own["input_schema"]["properties"] == {"any": {}, "none": {"not": {}}, "one": {"type": "null"}}
    assert prompt_of(own).count("\n- ") == 3
    [own] = await listed(Described(description=ToolDescription(input_schema={"properties": None})))
    assert own["input_schema"] == {"properties": None}


@pytest.mark.parametrize(
    "broken",
    [
        Described(description=ToolDescription(text="\ud800")),
        Described(description=ToolDescription(input_schema={"default": math.nan})),
        Described(description=ToolDescription(input_schema=cast("dict[str, JSON]", {"default": object()}))),
        Described(description=ToolDescription(meta=cast("dict[str, JSON]", [1]))),
        Described(description=ToolDescription(text=cast("str", 5))),
        Own(namespace=5),
        Own(namespace=object()),
    ],
    ids=["surrogate", "not a number", "object", "meta", "text", "number as namespace", "object as namespace"],
)
async def test_tool_that_cannot_be_listed_hides_no_other_and_is_warned_about_once(
    broken: Own, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_commanded_agent([click, broken, look]) as (peer, _, _):
        for _ in range(2):
            [result] = await results_of(peer, call("list_tools"))
            assert names_in(read_as_the_original(result.result)) == ["click", "look"]
    assert caplog.text.count("tool 'own' is not listed: ") == 1


async def test_tools_of_sources_are_listed_as_they_are_now() -> None:
    source = ChangingSource()
    async with open_commanded_agent([click], tool_sources=[source]) as (peer, agent, _):
        for tools, names in (([], ["click"]), ([Own()], ["click", "own"]), ([], ["click"])):
            source.offered = list(tools)
            [result] = await results_of(peer, call("list_tools"))
            assert names_in(read_as_the_original(result.result)) == names
            assert agent.tool_names == ["list_tools", *names]
