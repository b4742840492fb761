"""The session function of the recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from galaxy_trio import TaskFailed
from galaxy_trio.messages import Command, ToolType

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


async def recorded_session(task: ServerTask) -> object:
    """Run the requests of the recordings."""
    kind, _, argument = task.request.partition(":")
    match kind:
        case "echo":
            return {"echo": argument}
        case "fail":
            raise RuntimeError(argument)
        case "err":
            raise TaskFailed("", result={"failure": "session ended with an error"})
        case "cmd":
            commands = [Command(f"tool_{number}", ToolType.ACTION, {"i": number}) for number in range(int(argument))]
            names = ("status", "error", "result", "namespace", "call_id")
            return {"results": [{name: getattr(one, name) for name in names} for one in await task.execute(commands)]}
        case _:
            await trio.sleep(float(argument))
            return {"slept": argument}
