import sys

import trio

from galaxy_trio.agent import McpServer, open_agent, open_mcp_tools

NOTES = McpServer("notes", [sys.executable, "notes_server.py"])


async def main() -> None:
    async with (
        open_mcp_tools([NOTES]) as mcp_tools,
        open_agent("ws://127.0.0.1:5000/ws", "notebook", tool_sources=[mcp_tools]) as agent,
    ):
        print(agent.device_id, "is registered", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
