"""What the device of the tutorial can do."""

import trio

from galaxy_trio import ToolError
from galaxy_trio.agent import tool


@tool
async def greet(name: str) -> str:
    """Say hello."""
    return f"Hello, {name}!"


@tool
async def open_window(title: str, seconds: float = 1) -> str:
    """Open a window, which takes its time."""
    if title == "Paint":
        raise ToolError("Paint is not installed")
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        print(f"gave up on {title}", flush=True)
        raise
    return f"{title} is open"
