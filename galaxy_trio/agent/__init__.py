"""The device's role: a connection that is registered as a device, and what it says of its machine."""

from galaxy_trio.agent.connection import DeviceConnection, open_device_connection
from galaxy_trio.agent.mcp import McpServer, McpTools, open_mcp_tools
from galaxy_trio.agent.system_info import collect_system_info

__all__ = [
    "DeviceConnection",
    "McpServer",
    "McpTools",
    "collect_system_info",
    "open_device_connection",
    "open_mcp_tools",
]
