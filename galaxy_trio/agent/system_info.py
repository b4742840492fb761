"""What this machine is, as a device tells it at its registration. See "Device information" in docs/reference/wire.md.

Each thing is asked for apart: what cannot be told is None, and the rest is told all the same. psutil is asked where it is installed.
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
"""Seconds that all questions may take together."""
_DESKTOP_FEATURES: Final = ("gui", "cli", "browser", "file_system", "office")
_APPS: Final = {Platform.WINDOWS: "windows_apps", Platform.LINUX: "linux_apps", Platform.DARWIN: "macos_apps"}
_MOBILE: Final = (Platform.ANDROID, Platform.IOS)
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation, which nobody has."""
_THREADS: Final = 2
_threads = ThreadLimit("system information", _THREADS)

T = TypeVar("T")


async def collect_system_info(device_id: str) -> DeviceInfo:
    """Collect what this machine tells of itself, within 5 s; what it does not tell is None.

    Asking may block, on a name server above all, so it is done in a thread. When time is up, what is known by then is told. Cancelling
    is safe: the thread is left to its end, and at most two such are there at a time.

    Args:
        device_id: The name that the information is given under.
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
        supported_features=[*_DESKTOP_FEATURES, _APPS[known]] if known is not None and known in _APPS else [],
        platform_type=PlatformType.MOBILE if known in _MOBILE else PlatformType.COMPUTER,
        schema_version=SCHEMA_VERSION,
    )


class _Answers:
    """What is known so far: a thread writes it, and the event loop may read it before the thread has come to its end."""

    def __init__(self) -> None:
        self.platform: str | None = None
        self.os_version: str | None = None
        self.cpu_count: int | None = None
        self.memory_total_gb: float | None = None
        self.hostname: str | None = None
        self.ip_address: str | None = None

    def collect(self) -> None:
        # Name resolution may take long: it comes last.
        self.platform = _first_answer(_platform)
        self.os_version = _first_answer(platform.version)
        self.cpu_count = _first_answer(_psutil_cores, os.cpu_count)
        self.memory_total_gb = _first_answer(_psutil_memory, _standard_memory)
        self.hostname = _first_answer(socket.gethostname)
        self.ip_address = _first_answer(_routed_address, _psutil_address, _resolved_address)


def _first_answer(*questions: Callable[[], T | None]) -> T | None:
    """The first answer that is one."""
    for question in questions:
        try:
            answer = question()
            if isinstance(answer, str):
                # A name of other bytes than UTF-8's comes as lone surrogates, which cannot be sent.
                answer.encode()
        except Exception as error:  # noqa: BLE001  # what a platform raises where it has no answer is not told anywhere
            logger.debug("%s has no answer: %r", question.__name__, error)
        else:
            if answer:
                return answer
    return None


def _platform() -> str | None:
    if sys.platform in ("android", "ios"):
        # Its system may call itself "iPadOS".
        return sys.platform
    if "TERMUX_VERSION" in os.environ:
        # Python before 3.13 takes Android for Linux.
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
    # -1 stands for what is not known.
    return _gib(pages * page_size) if pages > 0 and page_size > 0 else None


def _routed_address() -> str | None:
    """The address of the interface that leads elsewhere. Connecting a datagram socket sends nothing."""
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                address: str = probe.getsockname()[0]
        except OSError:
            continue
        if _leads_here(address):
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
    return next(filter(_leads_here, addresses), None)


def _resolved_address() -> str:
    return socket.gethostbyname(socket.gethostname())


def _leads_here(address: str) -> bool:
    """Whether another machine could reach this one by it."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local)
