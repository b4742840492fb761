"""What a tool says about itself when a server lists a device's tools."""

from __future__ import annotations

from typing import Final

import attrs

from galaxy_trio.messages import JSON  # attrs resolves the annotations


@attrs.frozen(kw_only=True)
class ToolDescription:
    """A tool's description for planners. It becomes the fields of `ToolInfo`. A field that is None is unknown.

    Attributes:
        title: The name to show to a person.
        text: The purpose of the tool, in words.
        input_schema: The JSON Schema of the parameters, an object.
        output_schema: The JSON Schema of the result, if that is an object; otherwise of an object with the result as its member
            ``result``.
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
