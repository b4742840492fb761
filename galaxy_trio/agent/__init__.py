"""The device's role: it registers, stays registered, says what its machine is, and runs tools for whoever asks."""

from galaxy_trio.agent.connection import DeviceConnection, open_device_connection
from galaxy_trio.agent.system_info import collect_system_info
from galaxy_trio.agent.tools import FunctionTool, Tool, ToolSource, tool

__all__ = [
    "DeviceConnection",
    "FunctionTool",
    "Tool",
    "ToolSource",
    "collect_system_info",
    "open_device_connection",
    "tool",
]
