"""What systemd is told: that the daemon is ready, reloads, stops, and lives. See sd_notify(3)."""

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
    """Tell systemd, if it has started us as ``Type=notify``; never blocks or fails."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            sending.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("systemd cannot be told %r: %s", state, error)


def ready() -> None:
    """The daemon does its work, for the first time or again."""
    notify("READY=1")


def reloading() -> None:
    """The configuration is being read."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """The daemon comes to its end."""
    notify("STOPPING=1")


async def feed_watchdog(environment: Mapping[str, str] = os.environ) -> None:
    """Tell systemd that trio's scheduler lives, twice as often as it asks for, for ever; if it does not ask, return."""
    try:
        every = int(environment.get("WATCHDOG_USEC", "0")) / _MICROSECONDS / 2
    except ValueError:
        every = 0
    mine = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    while 0 < every < math.inf and mine:
        notify("WATCHDOG=1", environment)
        await trio.sleep(every)
