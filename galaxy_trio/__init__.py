"""A trio implementation of AIP, the Agent Interaction Protocol of UFO³ Galaxy."""

from __future__ import annotations

# isort: off
from galaxy_trio._program_start import exit_on_ctrl_c, is_program, raise_on_ctrl_c

if is_program():
    exit_on_ctrl_c()
# isort: on

from importlib import import_module
from typing import TYPE_CHECKING, Final

from galaxy_trio._codec.codec import unstructure_statistics
from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio._connection.backoff import Backoff
from galaxy_trio._connection.connection import Connection, ConnectionStatistics, open_connection
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._connection.request_types import PendingStatistics
from galaxy_trio._exports import set_module
from galaxy_trio._version import __version__ as __version__
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
from galaxy_trio.events import DeviceStatus
from galaxy_trio.messages import DeviceInfo, Platform, PlatformType, TaskResult, TaskStatus

if TYPE_CHECKING:
    from galaxy_trio.constellation import (
        BeforeSending,
        Constellation,
        ConstellationConfig,
        ConstellationStatistics,
        Device,
        DeviceConfig,
        DeviceProfile,
        DeviceStatistics,
        NotSentCallback,
        OnCancel,
        Reservation,
        open_constellation,
        read_config,
    )


__all__ = [
    "Backoff",
    "BeforeSending",
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "ConnectionOptions",
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
    "MemoryBudget",
    "MessageTooLarge",
    "NoSuchDevice",
    "NotSentCallback",
    "OnCancel",
    "PendingStatistics",
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
    "unstructure_statistics",
]

set_module(globals())
raise_on_ctrl_c()

# Imported on first use: a program with one connection does not pay for them.
_FROM_CONSTELLATION: Final = frozenset(__all__).difference(globals())


def __getattr__(name: str) -> object:
    if name not in _FROM_CONSTELLATION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module("galaxy_trio.constellation"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
