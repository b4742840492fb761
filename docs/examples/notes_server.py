"""An MCP server, by the official SDK."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def count_words(text: str) -> int:
    """How many words a text has."""
    return len(text.split())


if __name__ == "__main__":
    server.run()
