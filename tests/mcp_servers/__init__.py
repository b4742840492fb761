"""Real MCP servers from the package registries, over this package's agent."""
