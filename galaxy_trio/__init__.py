"""AIP, the Agent Interaction Protocol of UFO³ Galaxy, on structured concurrency."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from galaxy_trio._connection.connection import Connection, ConnectionStatistics, open_connection
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

if TYPE_CHECKING:
    from galaxy_trio.constellation.config import ConstellationConfig, DeviceConfig, read_config
    from galaxy_trio.constellation.constellation import Constellation, open_constellation
    from galaxy_trio.constellation.device import Device
    from galaxy_trio.constellation.device_statistics import ConstellationStatistics, DeviceStatistics
    from galaxy_trio.constellation.profile import DeviceProfile
    from galaxy_trio.constellation.reservation import Reservation
    from galaxy_trio.device_events import DeviceStatus

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

# Who has one device needs none of these, and does not wait for them when the package is imported.
_IMPORTED_WHEN_ASKED_FOR: Final = {
    "ConstellationConfig": "galaxy_trio.constellation.config",
    "DeviceConfig": "galaxy_trio.constellation.config",
    "read_config": "galaxy_trio.constellation.config",
    "Constellation": "galaxy_trio.constellation.constellation",
    "open_constellation": "galaxy_trio.constellation.constellation",
    "Device": "galaxy_trio.constellation.device",
    "DeviceStatus": "galaxy_trio.device_events",
    "ConstellationStatistics": "galaxy_trio.constellation.device_statistics",
    "DeviceStatistics": "galaxy_trio.constellation.device_statistics",
    "DeviceProfile": "galaxy_trio.constellation.profile",
    "Reservation": "galaxy_trio.constellation.reservation",
}


def __getattr__(name: str) -> object:
    module = _IMPORTED_WHEN_ASKED_FOR.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
