"""The device's role: a connection that is registered as a device, and what it says of its machine."""

from galaxy_trio.agent.connection import DeviceConnection, open_device_connection
from galaxy_trio.agent.system_info import collect_system_info

__all__ = ["DeviceConnection", "collect_system_info", "open_device_connection"]
