"""What a tool says about itself when a server lists a device's tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import attrs

from galaxy_trio.agent.tools import Tool

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON


@attrs.frozen(kw_only=True)
class ToolDescription:
    """A tool's description for planners; see `ToolInfo`, whose fields these are. A field that is None is unknown.

    Attributes:
        title: The name to show to a person.
        text: The purpose of the tool, in words.
        input_schema: The JSON Schema of the parameters, an object.
        output_schema: The JSON Schema of the result, an object. For a result that is not an object, that of an object with the result
            as its member ``result``.
        meta: Further data about the tool.
        annotations: Hints about the tool's behaviour, as MCP defines them.
    """

    title: str | None = None
    text: str | None = None
    input_schema: dict[str, JSON] | None = None
    output_schema: dict[str, JSON] | None = None
    meta: dict[str, JSON] | None = None
    annotations: dict[str, JSON] | None = None


UNDESCRIBED: Final = ToolDescription()
"""The description of a tool that has none."""


@runtime_checkable
class DescribedTool(Tool, Protocol):
    """A `Tool` that describes itself. Others are listed by their names alone."""

    @property
    def description(self) -> ToolDescription:
        """The tool's description. Read whenever the tools are listed, so it must not block."""
        ...
