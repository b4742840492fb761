"""A description of this machine for a device's registration. See "Device information" in docs/reference/wire.md.

Each value is determined separately; a value that cannot be determined is None. psutil, which the extra ``cli`` contains, is used if it
is installed; otherwise the standard library answers.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import platform
import socket
import sys
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio.messages import DeviceInfo, Platform, PlatformType

if TYPE_CHECKING:
    from collections.abc import Callable

logger: Final = logging.getLogger(__name__)

SCHEMA_VERSION: Final = "1.0"

_TIMEOUT: Final = 5.0
"""Seconds for all values together."""
_DESKTOP_FEATURES: Final = ("gui", "cli", "browser", "file_system", "office")
_NEED_A_SCREEN: Final = ("gui", "office")
_SCREENS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
"""On Linux, a program can open windows if one of these variables is set."""
_APPS: Final = {Platform.WINDOWS: "windows_apps", Platform.LINUX: "linux_apps", Platform.DARWIN: "macos_apps"}
_MOBILE: Final = (Platform.ANDROID, Platform.IOS)
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that are reserved for documentation."""
_THREADS: Final = 2
_threads = ThreadLimit("system information", _THREADS)

T = TypeVar("T")


async def collect_system_info(device_id: str) -> DeviceInfo:
    """Describe this machine within 5 s. Unknown values are None.

    Runs in a thread, because a system call may block, above all for a name server. After 5 s, the values known so far are returned.
    Cancelling is safe: the thread is abandoned and runs to its end. At most two such threads run at a time.

    Args:
        device_id: The name in the description.
    """
    answers = _Answers()
    with trio.move_on_after(_TIMEOUT):
        await trio.to_thread.run_sync(answers.collect, abandon_on_cancel=True, limiter=_threads.get())
    named = answers.platform or ("windows" if sys.platform == "win32" else sys.platform)
    known = Platform(named) if named in {member.value for member in Platform} else None
    return DeviceInfo(
        device_id,
        known or named,
        os_version=answers.os_version,
        cpu_count=answers.cpu_count,
        memory_total_gb=answers.memory_total_gb,
        hostname=answers.hostname,
        ip_address=answers.ip_address,
        supported_features=_features(known),
        platform_type=PlatformType.MOBILE if known in _MOBILE else PlatformType.COMPUTER,
        schema_version=SCHEMA_VERSION,
    )


def _features(known: Platform | None) -> list[str]:
    """What a desktop offers; without a screen, nothing that opens windows."""
    if known is None or known not in _APPS:
        return []
    headless = known is Platform.LINUX and not any(map(os.environ.get, _SCREENS))
    hidden = _NEED_A_SCREEN if headless else ()
    return [*(feature for feature in _DESKTOP_FEATURES if feature not in hidden), _APPS[known]]


class _Answers:
    """The values known so far. A thread writes them, and the event loop may read them before the thread ends."""

    def __init__(self) -> None:
        self.platform: str | None = None
        self.os_version: str | None = None
        self.cpu_count: int | None = None
        self.memory_total_gb: float | None = None
        self.hostname: str | None = None
        self.ip_address: str | None = None

    def collect(self) -> None:
        self.platform = _first_answer(_platform)
        self.os_version = _first_answer(platform.version)
        self.cpu_count = _first_answer(_psutil_cores, os.cpu_count)
        self.memory_total_gb = _first_answer(_psutil_memory, _standard_memory)
        self.hostname = _first_answer(socket.gethostname)
        # Last, because name resolution may take long.
        self.ip_address = _first_answer(_routed_address, _psutil_address, _resolved_address)


def _first_answer(*questions: Callable[[], T | None]) -> T | None:
    """Return the first answer that is neither empty nor an exception."""
    for question in questions:
        try:
            answer = question()
            if isinstance(answer, str):
                # A name that is not UTF-8 contains lone surrogates, which cannot be sent.
                answer.encode()
        except Exception as error:  # noqa: BLE001  # undocumented: a platform without an answer may raise anything
            logger.debug("%s has no answer: %r", question.__name__, error)
        else:
            if answer:
                return answer
    return None


def _platform() -> str | None:
    if sys.platform in ("android", "ios"):
        # platform.system() may return "iPadOS".
        return sys.platform
    if "TERMUX_VERSION" in os.environ:
        # Python before 3.13 reports Android as Linux.
        return Platform.ANDROID.value
    return platform.system().lower()


def _psutil_cores() -> int | None:
    import psutil  # noqa: PLC0415  # an extra, and slow to import

    return psutil.cpu_count()


def _gib(size: int) -> float:
    return round(size / 2**30, 2)


def _psutil_memory() -> float:
    import psutil  # noqa: PLC0415  # an extra, and slow to import

    return _gib(psutil.virtual_memory().total)


def _standard_memory() -> float | None:
    pages, page_size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    # -1 means unknown.
    return _gib(pages * page_size) if pages > 0 and page_size > 0 else None


def _routed_address() -> str | None:
    """The address of the interface that routes to other machines. Connecting a datagram socket sends nothing."""
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                address: str = probe.getsockname()[0]
        except OSError:
            continue
        if _is_reachable(address):
            return address
    return None


def _psutil_address() -> str | None:
    import psutil  # noqa: PLC0415  # an extra, and slow to import

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    addresses = (
        address.address
        for name, on_interface in psutil.net_if_addrs().items()
        if name in up
        for address in on_interface
        if address.family is socket.AF_INET
    )
    return next(filter(_is_reachable, addresses), None)


def _resolved_address() -> str:
    return socket.gethostbyname(socket.gethostname())


def _is_reachable(address: str) -> bool:
    """Whether another machine could reach this one at the address."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local)
