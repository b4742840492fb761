"""Harmless tools for first tries: ``galaxy-trio agent URL DEVICE --tools galaxy_trio.agent.example_tools``."""

from __future__ import annotations

import platform
from pathlib import Path

from galaxy_trio.agent.tools import tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import ToolType


@tool
async def add(a: float, b: float) -> int | float:
    """Add two numbers."""
    return a + b


@tool(tool_type=ToolType.DATA_COLLECTION)
def where_am_i() -> dict[str, str]:
    """Return the machine's name and system, and the folder that the agent was started in."""
    return {"host": platform.node(), "system": platform.platform(), "folder": str(Path.cwd())}


@tool(tool_type=ToolType.DATA_COLLECTION)
def list_directory(path: str = ".") -> list[str]:
    """List the names in a folder, sorted."""
    try:
        return sorted(entry.name for entry in Path(path).iterdir())
    except OSError as error:
        # The text of a ToolError is the reply; any other exception would be logged here as a bug.
        raise ToolError(f"cannot list {path!r}: {error.strerror}") from error
