"""The server's role: runs the tasks of its clients on its devices."""

from galaxy_trio._exports import set_module
from galaxy_trio.server.device_config import read_device_config
from galaxy_trio.server.registry import ClientInfo
from galaxy_trio.server.server import Server, ServerLimits, ServerStatistics, open_server
from galaxy_trio.server.sessions import ServerTask, SessionFunction

__all__ = [
    "ClientInfo",
    "Server",
    "ServerLimits",
    "ServerStatistics",
    "ServerTask",
    "SessionFunction",
    "open_server",
    "read_device_config",
]

set_module(globals())
