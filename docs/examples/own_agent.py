"""A device agent as part of your own program."""

from pathlib import Path

import trio

from galaxy_trio import ToolError
from galaxy_trio.agent import open_agent, tool
from galaxy_trio.messages import ToolType

NOTES = Path("notes.txt")


@tool
def write_note(text: str) -> int:
    """Append a note. A plain function runs in a thread, so it may block."""
    with NOTES.open("a", encoding="utf-8") as notes:
        return notes.write(f"{text}\n")


@tool(tool_type=ToolType.DATA_COLLECTION, timeout=5)
async def read_notes(*, limit: int = 10) -> list[str]:
    """Return the latest notes. An async function runs on the event loop and can be cancelled at each await."""
    try:
        text = await trio.Path(NOTES).read_text("utf-8")
    except FileNotFoundError:
        raise ToolError("there are no notes yet: add one with write_note") from None
    return text.splitlines()[-limit:]


async def main() -> None:
    async with open_agent("ws://127.0.0.1:5000/ws", "notebook", [write_note, read_notes]) as agent:
        print(agent.device_id, "is registered", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
