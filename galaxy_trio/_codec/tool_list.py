"""The answer to ``list_tools``: a list with an object for each tool. One invalid object loses no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._codec.converters import make_converter
from galaxy_trio._codec.strict_types import Mismatch, mismatch, shorten
from galaxy_trio.messages import JSON, ToolInfo

if TYPE_CHECKING:
    from collections.abc import Callable

_converter: Final = make_converter()


def read_tools(value: JSON, report: Callable[[str], None]) -> list[ToolInfo]:
    """Read the tools in an answer. Null is an empty list, as the original's device sends it.

    Args:
        value: The result of ``list_tools``.
        report: Called for each tool that cannot be read, with what is wrong.

    Raises:
        Mismatch: The answer is not a list.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise mismatch("a list of tools", value)
    tools: list[ToolInfo] = []
    for index, item in enumerate(value):
        try:
            tools.append(_converter.structure(item, ToolInfo))
        except Mismatch as wrong:
            name = cast("object", item.get("tool_name")) if isinstance(item, dict) else None
            report(f"tool {shorten(name) if isinstance(name, str) else index + 1}: {wrong}")
    return tools
