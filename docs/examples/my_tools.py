"""The tools of the tutorial's device."""

import trio

from galaxy_trio import ToolError
from galaxy_trio.agent import tool


@tool
async def greet(name: str) -> str:
    """Return a greeting."""
    return f"Hello, {name}!"


@tool
async def open_window(title: str, seconds: float = 1) -> str:
    """Open a window. It takes a while."""
    if title == "Paint":
        raise ToolError("Paint is not installed")
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        print(f"cancelled: {title}", flush=True)
        raise
    return f"{title} is open"
