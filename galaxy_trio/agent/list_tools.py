"""The tool ``list_tools``, which every device has: planners make their prompts from its result.

See "Listing tools" in docs/reference/wire.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio

from galaxy_trio._codec.codec import decode_value, encode_value
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._codec.tool_list import read_tools
from galaxy_trio.agent.command_runner import one_line
from galaxy_trio.agent.tool_description import UNDESCRIBED, ToolDescription
from galaxy_trio.agent.tool_index import ToolIndex
from galaxy_trio.agent.tools import DescribedTool, namespace_of, tool
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import JSON, ToolType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from galaxy_trio.agent.tools import Tool, ToolSource


def index_with_list_tools(tools: Iterable[Tool], sources: Iterable[ToolSource] = ()) -> ToolIndex:
    """Index a device's tools, with ``list_tools`` in front of them."""

    @tool(tool_type=ToolType.DATA_COLLECTION)
    async def list_tools(
        tool_type: str | None = None, namespace: str | None = None, remove_meta: bool = True
    ) -> list[JSON]:
        """List the tools of this device.

        Args:
            tool_type: List only tools of this type, action or data_collection.
            namespace: List only tools of this namespace.
            remove_meta: Leave out list_tools itself.
        """
        listed: list[JSON] = []
        for name, each in index.current().items():
            # Between two tools, because schemas may be large.
            await trio.lowlevel.checkpoint()
            if each is list_tools and remove_meta:
                continue
            # As on the original's device, list_tools is there for each type.
            for one_type in ToolType if each is list_tools else (each.tool_type,):
                if tool_type in (None, one_type) and namespace in (None, namespace_of(each)):
                    # One that cannot be sent must not hide the other tools.
                    problems: list[str] = []
                    listed += _sendable(_describe(name, each, one_type), problems.append)
                    for problem in problems:
                        index.warn(f"tool {shorten(name)} is not listed: {one_line(problem)}")
        return listed

    index = ToolIndex([list_tools, *tools], sources)
    return index


def _describe(name: str, listed: Tool, tool_type: ToolType) -> dict[str, JSON]:
    """A tool's object in the result."""
    given = listed.description if isinstance(listed, DescribedTool) else UNDESCRIBED
    # A tool may have another kind of description for itself.
    description = given if isinstance(cast("object", given), ToolDescription) else UNDESCRIBED
    return {
        "tool_key": f"{tool_type}::{name}",
        "tool_name": name,
        "namespace": namespace_of(listed),
        "tool_type": tool_type,
        "title": description.title,
        "description": description.text,
        "input_schema": _readable(description.input_schema),
        "output_schema": description.output_schema,
        "meta": description.meta,
        "annotations": description.annotations,
    }


def _sendable(described: dict[str, JSON], report: Callable[[str], None]) -> list[JSON]:
    """The object as its receiver will read it. Without a valid object, reports the problem and returns nothing."""
    try:
        sent = decode_value(encode_value(described))
    except InvalidMessage as invalid:
        report(str(invalid))
        return []
    return [sent] if read_tools([sent], report) else []


def _readable(schema: dict[str, JSON] | None) -> dict[str, JSON] | None:
    """Replace the schemas true and false of parameters by equal objects: the original's agents read members of each."""
    if schema is None or not isinstance(properties := schema.get("properties"), dict):
        return schema
    objects: dict[str, JSON] = {
        name: each if isinstance(each, dict) else {"not": {}} if each is False else {}
        for name, each in properties.items()
    }
    return {**schema, "properties": objects}
