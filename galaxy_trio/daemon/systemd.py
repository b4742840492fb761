"""Notifies systemd of the daemon's state, and of its watchdog. See sd_notify(3)."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping

logger: Final = logging.getLogger(__name__)

_MICROSECONDS: Final = 1_000_000


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send a state to systemd if it started the daemon as ``Type=notify``. Never blocks or fails."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("systemd cannot be notified of %r: %s", state, error)


def ready() -> None:
    """Report that the daemon is ready, after its start or after a reload."""
    notify("READY=1")


def reloading() -> None:
    """Report that the daemon is reloading its configuration."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """Report that the daemon is stopping."""
    notify("STOPPING=1")


async def ping_watchdog(environment: Mapping[str, str] = os.environ) -> None:
    """Ping the watchdog twice per interval, so that systemd notices a blocked event loop. Return if systemd requests no pings."""
    try:
        interval = int(environment.get("WATCHDOG_USEC", "0")) / _MICROSECONDS / 2
    except ValueError:
        interval = 0
    is_for_this_process = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    while 0 < interval < math.inf and is_for_this_process:
        notify("WATCHDOG=1", environment)
        await trio.sleep(interval)
