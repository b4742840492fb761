"""The device's role: stays registered with a server, describes its machine, runs tools on command."""

from galaxy_trio._exports import set_module
from galaxy_trio.agent.agent import Agent, AgentStatistics, open_agent
from galaxy_trio.agent.connection import DeviceConnection, open_device_connection
from galaxy_trio.agent.mcp_server import McpServer
from galaxy_trio.agent.mcp_supervisor import McpTools, open_mcp_tools
from galaxy_trio.agent.system_info import collect_system_info
from galaxy_trio.agent.tool_description import ToolDescription
from galaxy_trio.agent.tools import DescribedTool, FunctionTool, Tool, ToolSource, tool

__all__ = [
    "Agent",
    "AgentStatistics",
    "DescribedTool",
    "DeviceConnection",
    "FunctionTool",
    "McpServer",
    "McpTools",
    "Tool",
    "ToolDescription",
    "ToolSource",
    "collect_system_info",
    "open_agent",
    "open_device_connection",
    "open_mcp_tools",
    "tool",
]

set_module(globals())
