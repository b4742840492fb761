"""Acts on what the other daemons of the cluster have written: their tasks, their devices, and what they ask this one to do.

Rule 10 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from galaxy_trio import GalaxyError
from galaxy_trio.daemon.store import events
from galaxy_trio.daemon.store.short_task import task_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.ownership import Ownership
    from galaxy_trio.daemon.task_queue import TaskQueue

logger: Final = logging.getLogger(__name__)


class Reports:
    """Takes the events of other daemons, in order.

    Args:
        nursery: Runs what takes longer.
        task_queue: Gets the changes of tasks.
        ownership: Steps after changes of devices and daemons.
        constellation: The devices that this daemon owns.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        task_queue: TaskQueue,
        ownership: Ownership,
        constellation: Constellation,
    ) -> None:
        self._nursery = nursery
        self._task_queue = task_queue
        self._ownership = ownership
        self._constellation = constellation

    def take(self, kind: str, data: Mapping[str, Any]) -> None:  # Any: the values of JSON
        """Act on an event. One that this version does not understand is left out."""
        try:
            act = self._action(kind, data)
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("an event %r of another daemon is not understood: %r", kind, error)
        else:
            act()

    def _action(self, kind: str, data: Mapping[str, Any]) -> Callable[[], None]:  # Any: the values of JSON
        """What to do after an event. Only reading it may fail because another version wrote it."""
        match kind:
            case "task":
                return partial(self._task_queue.report, task_of(data))
            case events.FREE:
                return partial(self._task_queue.report_free, task_of(data))
            case events.CANCEL:
                return partial(self._start, self._task_queue.cancel_here, data["id"])
            case events.RECONNECT:
                return partial(self._start, partial(reconnect, self._constellation), data["device_id"])
            case "device":
                return self._ownership.wake
            case events.CLUSTER:
                return self._cluster_changed
            case _:
                return _ignore

    def _start(self, action: Callable[[str], Awaitable[None]], name: str) -> None:
        self._nursery.start_soon(action, name)

    def _cluster_changed(self) -> None:
        self._ownership.wake()
        self._task_queue.look_for_free()


def _ignore() -> None:
    """What is done after an event that concerns no other daemon."""


async def reconnect(constellation: Constellation, name: str) -> None:
    """Reconnect a device, if this daemon owns it."""
    device = constellation.devices.get(name)
    if device is not None:
        # The device's events say why it cannot be connected.
        with suppress(GalaxyError, trio.ClosedResourceError):
            await device.reconnect()
