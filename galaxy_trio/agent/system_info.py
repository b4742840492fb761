"""What this machine is, as a device tells it at its registration. See "Device information" in docs/reference/wire.md."""

from __future__ import annotations

import os
import platform
import socket
from typing import Final

import trio

from galaxy_trio.messages import DeviceInfo, Platform, PlatformType

SCHEMA_VERSION: Final = "1.0"

_DESKTOP_FEATURES = ["gui", "cli", "browser", "file_system", "office"]
_APPS = {Platform.WINDOWS: "windows_apps", Platform.LINUX: "linux_apps", Platform.DARWIN: "macos_apps"}
_limiter = trio.CapacityLimiter(2)


async def collect_system_info(device_id: str) -> DeviceInfo:
    """Collect what the standard library can tell about this machine; what it cannot is None.

    Asking for addresses may block on a name server, so it is done in a thread, which is abandoned when this is cancelled.

    Args:
        device_id: The name that the information is given under.
    """
    return await trio.to_thread.run_sync(_collect, device_id, abandon_on_cancel=True, limiter=_limiter)


def _collect(device_id: str) -> DeviceInfo:
    name = platform.system().lower()
    known = Platform(name) if name in {member.value for member in Platform} else None
    hostname = _hostname()
    return DeviceInfo(
        device_id,
        known or name,
        os_version=platform.version() or None,
        cpu_count=os.cpu_count(),
        memory_total_gb=_memory_total_gb(),
        hostname=hostname,
        ip_address=_address_of(hostname),
        supported_features=[*_DESKTOP_FEATURES, _APPS[known]] if known is not None and known in _APPS else [],
        platform_type=PlatformType.COMPUTER,
        schema_version=SCHEMA_VERSION,
    )


def _memory_total_gb() -> float | None:
    try:
        pages, page_size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    # -1 stands for what is not known.
    return round(pages * page_size / 2**30, 2) if pages > 0 and page_size > 0 else None


def _hostname() -> str | None:
    try:
        return socket.gethostname()
    except OSError:
        return None


def _address_of(hostname: str | None) -> str | None:
    try:
        return None if hostname is None else socket.gethostbyname(hostname)
    # UnicodeError: a machine may have a name that DNS cannot, such as one of 64 characters.
    except (OSError, UnicodeError):
        return None
