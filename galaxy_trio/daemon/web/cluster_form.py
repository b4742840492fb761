"""The daemons of a cluster, in the form in which the HTTP interface shows them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.fleet import DaemonState, DaemonStates


def cluster_as_json(states: DaemonStates, this_life: str, devices: int) -> dict[str, object]:
    """Represent the daemons, and how many of the devices have no owner.

    Args:
        states: The daemons.
        this_life: The life of the daemon that answers.
        devices: The number of all devices.
    """
    owned = sum(daemon.devices for daemon in states.daemons)
    return {
        "now": _time(states.now),
        "daemons": [_daemon_as_json(daemon, this_life) for daemon in states.daemons],
        "devices": devices,
        "unowned": max(devices - owned, 0),
    }


def _daemon_as_json(daemon: DaemonState, this_life: str) -> dict[str, object]:
    life = daemon.life
    return {
        "id": life.id,
        "name": life.name,
        "url": life.url,
        "answers": life.id == this_life,
        "started": _time(life.started),
        # A daemon that is the only one needs no lease.
        "expires": None if life.expires == math.inf else _time(life.expires),
        "died": None if life.died is None else _time(life.died),
        "draining": life.draining is not None,
        "devices": daemon.devices,
        "running": daemon.running,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
