"""The tools of the plan's devices."""

import trio

from galaxy_trio import ToolError
from galaxy_trio.agent import tool

interrupted = set[str]()


@tool
async def pack(folder: str, seconds: float = 1) -> str:
    """Pack a folder into an archive. It takes a while."""
    await trio.sleep(seconds)
    return f"{folder}.zip"


@tool
async def free_space() -> dict[str, int]:
    """Return how much room the disk has."""
    return {"gigabytes": 4}


@tool
async def clean_up() -> str:
    """Delete old archives."""
    return "2 old archives are deleted"


@tool
async def store(name: str) -> str:
    """Copy an archive to the disk."""
    return f"{name} is stored"


@tool
async def upload(name: str) -> str:
    """Upload an archive. The first attempt is interrupted, the next one continues where it ended."""
    if name not in interrupted:
        interrupted.add(name)
        raise ToolError("the connection broke in the middle")
    interrupted.remove(name)
    return f"{name} is uploaded"


@tool
async def verify(name: str) -> str:
    """Read an archive to its end."""
    return f"{name} is intact"
