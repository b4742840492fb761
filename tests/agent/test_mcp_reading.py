"""Reading an MCP server's tools, results and messages: a broken part is left out alone, and nothing else is dropped."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from galaxy_trio.agent.mcp_messages import parse_messages
from galaxy_trio.agent.mcp_reading import read_failure, read_result, read_tools
from galaxy_trio.agent.tool_description import ToolDescription
from galaxy_trio.errors import ToolError

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

TEXT: JSON = {"type": "text", "text": "20 degrees"}
IMAGE: JSON = {"type": "image", "data": "AAEC", "mimeType": "image/png"}
LINK: JSON = {"type": "resource_link", "uri": "file:///a", "name": "a"}
WEATHER: JSON = {"temperature": 20}


def text(value: str) -> JSON:
    return {"type": "text", "text": value}


def test_every_part_of_a_listed_tool_is_passed_on() -> None:
    listed: dict[str, JSON] = {
        "name": "weather",
        "title": "The weather",
        "description": "Tells the weather.",
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object", "properties": {}},
        "annotations": {"readOnlyHint": True, "title": "W"},
        "_meta": {"a": 1},
        "icons": [],
    }
    page = read_tools({"tools": [listed], "nextCursor": "more"})
    [tool] = page.tools
    assert (tool.name, tool.read_only, page.problems, page.next_cursor) == ("weather", True, [], "more")
    assert tool.description == ToolDescription(
        title="The weather",
        text="Tells the weather.",
        input_schema={"type": "object"},
        output_schema={"type": "object", "properties": {}},
        meta={"a": 1},
        annotations={"readOnlyHint": True, "title": "W"},
    )


@pytest.mark.parametrize("listed", [None, {}, "tools", 5])
def test_wrong_type_in_place_of_the_list_of_tools_is_an_error(listed: JSON) -> None:
    with pytest.raises(ToolError, match="its list of tools is "):
        read_tools({"tools": listed})


@pytest.mark.parametrize("cursor", ["", None])
def test_empty_cursor_is_the_end(cursor: JSON) -> None:
    page = read_tools({"tools": [], "nextCursor": cursor})
    assert (page.problems, page.next_cursor) == ([], None)


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ({}, None),
        ({"content": []}, None),
        ({"content": [TEXT]}, "20 degrees"),
        ({"content": [TEXT, IMAGE]}, ["20 degrees", IMAGE]),
        ({"content": [LINK]}, LINK),
        ({"content": [{**TEXT, "annotations": {"priority": 1}}]}, {**TEXT, "annotations": {"priority": 1}}),  # type: ignore[dict-item]
        ({"content": "no list"}, "no list"),
        ({"content": [5, None, {"type": "new"}]}, [5, None, {"type": "new"}]),
        # The text says the same as the structure.
        ({"content": [], "structuredContent": WEATHER}, WEATHER),
        ({"content": [text('{"temperature": 20}')], "structuredContent": WEATHER}, WEATHER),
        ({"content": [text("20")], "structuredContent": {"result": 20}}, {"result": 20}),
        ({"content": [text("a")], "structuredContent": {"result": "a"}}, {"result": "a"}),
        ({"content": [text("a"), text("2")], "structuredContent": {"result": ["a", 2]}}, {"result": ["a", 2]}),
        ({"content": [text("[1]")], "structuredContent": {"entities": [1]}}, {"entities": [1]}),
        # It says more.
        (
            {"content": [TEXT], "structuredContent": WEATHER},
            {"content": ["20 degrees"], "structuredContent": WEATHER},
        ),
        (
            {"content": [TEXT, IMAGE], "structuredContent": WEATHER, "isError": False},
            {"content": ["20 degrees", IMAGE], "structuredContent": WEATHER},
        ),
        (
            {"content": [IMAGE], "structuredContent": {"result": ["a"]}},
            {"content": [IMAGE], "structuredContent": {"result": ["a"]}},
        ),
        ({"content": [TEXT], "_meta": {"cost": 5}}, {"content": ["20 degrees"], "_meta": {"cost": 5}}),
        ({"content": [TEXT], "_meta": 5}, {"content": ["20 degrees"], "_meta": 5}),
        ({"content": [TEXT], "_meta": {"io.modelcontextprotocol/serverInfo": {}}}, "20 degrees"),
        ({"toolResult": 5}, {"toolResult": 5}),
        ({"content": [text("half a smile: \ud83d")]}, "half a smile: \ufffd"),
        ({"structuredContent": [1, 2], "content": [text("1"), text("3")]}, {"structuredContent": [1, 2], "content": ["1", "3"]}),
    ],
)  # fmt: skip
def test_nothing_of_a_result_is_dropped(result: dict[str, JSON], value: JSON) -> None:
    assert read_failure(result) is None
    assert read_result(result) == value


def test_half_an_emoji_in_a_description_does_not_hide_the_tool() -> None:
    page = read_tools({"tools": [{"name": "a", "description": "cut \udc00", "inputSchema": {}}]})
    assert page.tools[0].description.text == "cut \ufffd"


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"content": [text("no\n such city")]}, "no such city"),
        ({"content": [text("no"), text("city")]}, "no city"),
        ({"structuredContent": {"code": 5}}, '{"code": 5}'),
        ({"content": [text("no")], "structuredContent": {"code": 5}}, 'no {"code": 5}'),
        ({"content": [text('{"code": 5}')], "structuredContent": {"code": 5}}, '{"code": 5}'),
        ({"content": [{**TEXT, "annotations": {}}, IMAGE]}, "20 degrees (image)"),  # type: ignore[dict-item]
        ({"content": [{"type": "resource", "resource": {"uri": "a", "text": "the log"}}]}, "the log"),
        ({"content": [LINK]}, json.dumps(LINK)),
        ({"content": []}, ""),
        ({}, ""),
        ({"content": "no list"}, "no list"),
        ({"content": [text("no")], "why": "late", "_meta": {"a": 1}}, 'no {"why": "late", "_meta": {"a": 1}}'),
    ],
)
def test_reason_of_a_failure_is_all_that_was_said(result: dict[str, JSON], reason: str) -> None:
    assert read_failure({**result, "isError": True}) == reason


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.dictionaries(
        st.sampled_from(["tools", "nextCursor", "content", "structuredContent", "isError", "_meta", "other"]), _json
    )
)
def test_any_result_is_read_or_is_a_tool_error(result: dict[str, JSON]) -> None:
    read_result(result)
    read_failure(result)
    with suppress(ToolError):
        read_tools(result)


async def parsed(value: JSON) -> object:
    [message] = await parse_messages(json.dumps(value))
    return message


async def test_messages_are_read_with_what_is_missing_or_wrong_in_them() -> None:
    assert await parsed({"id": 1, "result": {"a": 1}}) == JSONRPCResponse(jsonrpc="2.0", id=1, result={"a": 1})
    assert await parsed({"id": "1", "method": "ping", "params": []}) == JSONRPCRequest(
        jsonrpc="2.0", id="1", method="ping"
    )
    assert await parsed({"id": None, "method": "a", "params": {"b": 1}}) == JSONRPCNotification(
        jsonrpc="2.0", method="a", params={"b": 1}
    )
    error = await parsed({"id": 1, "error": {"code": "x", "message": 5, "data": 7}, "result": None})
    assert error == JSONRPCError(jsonrpc="2.0", id=1, error=ErrorData(code=-32603, message="5", data=7))
    error = await parsed({"id": None, "error": {"code": 5}})
    assert error == JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=5, message='{"code": 5}', data=None))
    assert await parsed({"id": True, "result": {}}) == "it is neither a request nor a reply"
    assert await parsed([5]) == "it is not a message"
    assert await parsed([]) == "it is an empty list"
    assert await parse_messages("{") == ["it is not JSON"]


@pytest.mark.parametrize("values", [1, 50_000])
async def test_numbers_that_json_lacks_are_read_as_null(values: int) -> None:
    [message] = await parse_messages(f'{{"id": 1, "result": {{"a": [{"NaN, " * values}-Infinity]}}}}')
    assert message == JSONRPCResponse(jsonrpc="2.0", id=1, result={"a": [None] * (values + 1)})


async def test_large_message_is_read_in_slices_and_its_number_of_values_is_limited() -> None:
    many = await parsed({"id": 1, "result": {"values": list(range(100_000))}})
    assert isinstance(many, JSONRPCResponse)
    assert many.result["values"][-1] == 99_999
    assert await parse_messages("[" * 100_000) == ["it has too many values, or they are nested too deep"]
    assert await parse_messages(f'{{"a": [{"1," * 600_000}1]}}') == [
        "it has too many values, or they are nested too deep"
    ]
    # Commas in a text are no values.
    assert isinstance(await parsed({"id": 1, "result": {"text": "," * 600_000}}), JSONRPCResponse)
