"""AIP, the Agent Interaction Protocol of UFO³ Galaxy, on structured concurrency."""

from galaxy_trio.connection import Connection, ConnectionStatistics, open_connection
from galaxy_trio.errors import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    GalaxyError,
    HandshakeRejected,
    InvalidMessage,
    MessageTooLarge,
    NoSuchDevice,
    QueueFull,
    RegistrationRejected,
    RequestRejected,
    RequestTimeout,
    TaskFailed,
    ToolError,
)
from galaxy_trio.messages import DeviceInfo, Platform, PlatformType, TaskResult, TaskStatus

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "ConnectionStatistics",
    "DeviceInfo",
    "GalaxyError",
    "HandshakeRejected",
    "InvalidMessage",
    "MessageTooLarge",
    "NoSuchDevice",
    "Platform",
    "PlatformType",
    "QueueFull",
    "RegistrationRejected",
    "RequestRejected",
    "RequestTimeout",
    "TaskFailed",
    "TaskResult",
    "TaskStatus",
    "ToolError",
    "open_connection",
]
