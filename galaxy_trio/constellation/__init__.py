"""Devices that are kept connected, and tasks for any device that fits."""

from galaxy_trio._exports import set_module
from galaxy_trio.constellation.config import ConstellationConfig, DeviceConfig, read_config
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.constellation.device import Device
from galaxy_trio.constellation.device_statistics import ConstellationStatistics, DeviceStatistics
from galaxy_trio.constellation.profile import DeviceProfile
from galaxy_trio.constellation.reservation import Reservation
from galaxy_trio.constellation.task import BeforeSending, NotSentCallback, OnCancel

__all__ = [
    "BeforeSending",
    "Constellation",
    "ConstellationConfig",
    "ConstellationStatistics",
    "Device",
    "DeviceConfig",
    "DeviceProfile",
    "DeviceStatistics",
    "NotSentCallback",
    "OnCancel",
    "Reservation",
    "open_constellation",
    "read_config",
]

set_module(globals())
