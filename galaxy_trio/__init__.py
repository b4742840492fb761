"""AIP, the Agent Interaction Protocol of UFO³ Galaxy, on structured concurrency."""

from galaxy_trio.config import ConstellationConfig, DeviceConfig, read_config
from galaxy_trio.connection import Connection, ConnectionStatistics, open_connection
from galaxy_trio.constellation import Constellation, open_constellation
from galaxy_trio.device import Device
from galaxy_trio.device_events import DeviceStatus
from galaxy_trio.device_statistics import ConstellationStatistics, DeviceStatistics
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
from galaxy_trio.profile import DeviceProfile
from galaxy_trio.reservation import Reservation

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "ConnectionStatistics",
    "Constellation",
    "ConstellationConfig",
    "ConstellationStatistics",
    "Device",
    "DeviceConfig",
    "DeviceInfo",
    "DeviceProfile",
    "DeviceStatistics",
    "DeviceStatus",
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
    "Reservation",
    "TaskFailed",
    "TaskResult",
    "TaskStatus",
    "ToolError",
    "open_connection",
    "open_constellation",
    "read_config",
]
