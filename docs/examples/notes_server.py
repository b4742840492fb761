"""An MCP server, written with the official SDK."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


if __name__ == "__main__":
    server.run()
