"""Reads what an MCP server sends: its tools and the results of calls. A broken part is left out by itself, and is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

import attrs

from galaxy_trio._arguments import MAX_ID
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio.agent.command_runner import one_line
from galaxy_trio.agent.mcp_server import ListedTool
from galaxy_trio.agent.tool_description import ToolDescription
from galaxy_trio.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio.messages import JSON

_PROTOCOLS_OWN: Final = frozenset(
    {"content", "structuredContent", "isError", "_meta", "resultType", "ttlMs", "cacheScope"}
)
"""Members of a result that the protocol defines."""
_PROTOCOLS_META: Final = "io.modelcontextprotocol/"
"""Prefix of metadata that is about the exchange, not about the result."""


@attrs.frozen
class ToolsPage:
    """One page of a server's list of tools.

    Attributes:
        tools: The tools that can be offered.
        problems: What is wrong with others, or with a part of these.
        next_cursor: Where the next page begins; None if this one is the last.
    """

    tools: list[ListedTool]
    problems: list[str]
    next_cursor: str | None


def read_tools(result: dict[str, JSON]) -> ToolsPage:
    """Read the result of ``tools/list``.

    Raises:
        ToolError: It contains no list of tools.
    """
    listed = result.get("tools")
    if not isinstance(listed, list):
        raise ToolError(f"its list of tools is {_kind(listed)}")
    problems: list[str] = []
    tools = [tool for number, each in enumerate(listed, 1) if (tool := _read_tool(each, number, problems)) is not None]
    cursor = result.get("nextCursor")
    if cursor is not None and not isinstance(cursor, str):
        problems.append(f"its list of tools may be incomplete: the nextCursor is {_kind(cursor)}, not text")
        cursor = None
    # An empty one is what some servers send on the last page.
    return ToolsPage(tools, problems, cursor or None)


def _read_tool(listed: JSON, number: int, problems: list[str]) -> ListedTool | None:
    if not isinstance(listed, dict):
        problems.append(f"ignored tool number {number}: it is {_kind(listed)}, not an object")
        return None
    name, schema = listed.get("name"), listed.get("inputSchema")
    if not isinstance(name, str):
        problems.append(f"ignored tool number {number}: its name is {_kind(name)}, not text")
        return None
    if not 0 < len(name) <= MAX_ID or not _can_be_sent(name):
        problems.append(f"ignored tool number {number}: its name {_wrong_name(name)}")
        return None
    shown = shorten(name)
    if not isinstance(schema, dict):
        problems.append(f"ignored tool {shown}: its inputSchema is {_kind(schema)}, not an object")
        return None

    def part(key: str, kind: type) -> JSON:
        value = listed.get(key)
        if value is None or isinstance(value, kind):
            return _sendable(value) if isinstance(value, str) else value
        problems.append(f"ignored the {key} of tool {shown}: it is {_kind(value)}, not {_KINDS[kind]}")
        return None

    annotations = cast("dict[str, JSON] | None", part("annotations", dict))
    return ListedTool(
        name,
        read_only=annotations is not None and annotations.get("readOnlyHint") is True,
        description=ToolDescription(
            title=cast("str | None", part("title", str)),
            text=cast("str | None", part("description", str)),
            input_schema=schema,
            output_schema=cast("dict[str, JSON] | None", part("outputSchema", dict)),
            meta=cast("dict[str, JSON] | None", part("_meta", dict)),
            annotations=annotations,
        ),
    )


def _can_be_sent(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong_name(name: str) -> str:
    if not name:
        return "is empty"
    return f"has more than {MAX_ID} characters" if len(name) > MAX_ID else "contains a lone surrogate"


_KINDS: Final[dict[type, str]] = {
    dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number",
}  # fmt: skip


def _kind(value: JSON) -> str:
    return "missing" if value is None else _KINDS[type(value)]


def read_result(result: dict[str, JSON]) -> JSON:
    """Read the result of ``tools/call`` that is no error.

    Returns:
        The structured content, if the rest only repeats it. Otherwise the value of the one content block, or the list of all blocks'
        values: text as a str, anything else as MCP's own JSON. With structured content that differs from it, or with other members:
        an object with all of them.
    """
    content = [_value(block) for block in _blocks(result)]
    others = _others(result)
    structure = result.get("structuredContent")
    if structure is None and not others:
        return content[0] if len(content) == 1 else content or None
    if not others and (not content or _repeat(content, structure)):
        return structure
    whole: dict[str, JSON] = {"content": content} if content else {}
    if structure is not None:
        whole["structuredContent"] = structure
    return whole | others


def read_failure(result: dict[str, JSON]) -> str | None:
    """Read the reason from the result of ``tools/call``; None if it is no error."""
    if result.get("isError") in (None, False):
        return None
    content = [_value(block) for block in _blocks(result)]
    structure = result.get("structuredContent")
    reasons = [_reason(value) for value in content]
    if structure is not None and not _repeat(content, structure):
        reasons.append(_reason(structure))
    if others := _others(result):
        reasons.append(_reason(others))
    return one_line(" ".join(filter(None, reasons)))


def error_reason(message: str, data: JSON) -> str:
    """The reason in an error of the protocol; empty if it gives none."""
    return one_line(message if data is None else f"{message} {_reason(data)}")


def _reason(value: JSON) -> str:
    match value:
        case str():
            return value
        case {"type": str() as kind, "data": str()}:
            # An image or a sound: its data explains nothing to a person.
            return f"({kind})"
        case {"type": "text", "text": str() as text} | {"resource": {"text": str() as text}}:
            return text
        case _:
            return json.dumps(value, ensure_ascii=False)


def _blocks(result: dict[str, JSON]) -> list[JSON]:
    content = result.get("content")
    if content is None:
        return []
    return content if isinstance(content, list) else [content]


def _others(result: dict[str, JSON]) -> dict[str, JSON]:
    """The members of a result that the protocol does not define."""
    others = {name: value for name, value in result.items() if name not in _PROTOCOLS_OWN}
    if meta := _own_meta(result):
        others["_meta"] = meta
    return others


def _own_meta(result: dict[str, JSON]) -> JSON:
    meta = result.get("_meta")
    if not isinstance(meta, dict):
        return meta
    return {name: value for name, value in meta.items() if not name.startswith(_PROTOCOLS_META)}


def _value(block: JSON) -> JSON:
    """The text of a block that contains nothing else; any other block as it is."""
    if isinstance(block, dict) and block.keys() == {"type", "text"} and block["type"] == "text":
        text = block["text"]
        return _sendable(text) if isinstance(text, str) else text
    return block


def _sendable(text: str) -> str:
    """Replace half emojis, as a text that was cut in JavaScript has them."""
    return text if _can_be_sent(text) else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _repeat(content: list[JSON], structure: JSON) -> bool:
    """Whether the content is the structure once more as text, as servers send it for clients that do not know structured content."""
    # Structured content is an object, so other values are the only member of one, which the text leaves out.
    candidates = (
        [structure, *structure.values()] if isinstance(structure, dict) and len(structure) == 1 else [structure]
    )
    return any(_is_text_of(content, candidate) for candidate in candidates)


def _is_text_of(content: Iterable[JSON], value: JSON) -> bool:
    texts = list(content)
    if len(texts) == 1 and _is_one_text_of(texts[0], value):
        return True
    return (
        isinstance(value, list)
        and len(texts) == len(value)
        and all(_is_one_text_of(text, item) for text, item in zip(texts, value, strict=True))
    )


def _is_one_text_of(text: JSON, value: JSON) -> bool:
    if not isinstance(text, str):
        return False
    if text == value:
        return True
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False
