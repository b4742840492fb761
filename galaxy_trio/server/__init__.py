"""The server's role: who is connected, what is known of the devices, and the sessions that run their tasks."""

from galaxy_trio.server.server import Server, ServerStatistics, open_server
from galaxy_trio.server.sessions import ServerTask, SessionFunction

__all__ = ["Server", "ServerStatistics", "ServerTask", "SessionFunction", "open_server"]
