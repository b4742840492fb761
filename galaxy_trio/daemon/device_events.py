"""Writes the events of devices to the database, many in one transaction."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from galaxy_trio.daemon.directory import report_of
from galaxy_trio.daemon.store.database import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from galaxy_trio import Device
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

_MAX_PENDING: Final = 1_000
"""Events that wait for the database."""
_MAX_WRITTEN: Final = 256
"""Events that are written in one transaction."""
_RETRY_DELAY: Final = 1.0
"""Seconds to wait before a failed transaction is repeated."""


class DeviceEvents:
    """Publishes events of devices without blocking.

    If the database is away while too many are published, they are replaced by the event ``reset``: listeners load everything again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: deque[tuple[str, Mapping[str, object]]] = deque()
        # The latest state of each device, by name.
        self._states: dict[str, str] = {}
        self._arrival = trio.Event()

    def publish(self, kind: str, data: Mapping[str, object]) -> None:
        """Publish an event, soon.

        Args:
            kind: The event's name.
            data: The event's data, of limited size. It must not be changed later.
        """
        if len(self._pending) == _MAX_PENDING:
            self._pending.clear()
            kind, data = "reset", {}
        self._pending.append((kind, data))
        self._arrival.set()

    def report(self, device: Device) -> None:
        """Let the other daemons know the state of a device, soon."""
        if self._store.is_shared:
            self._states[device.device_id] = report_of(device)

    async def write(self) -> NoReturn:
        """Write the published events until this is cancelled. If the database fails, it is retried."""
        while True:
            await self._arrival.wait()
            self._arrival = trio.Event()
            while self._pending:
                states, self._states = self._states, {}
                events = [self._pending.popleft() for _ in range(min(_MAX_WRITTEN, len(self._pending)))]
                await self._write(events, states)

    async def _write(self, events: list[tuple[str, Mapping[str, object]]], states: Mapping[str, str]) -> None:
        """Write events. After an unknown outcome they may be written twice: each says how its device is."""
        is_failing = False
        while True:
            try:
                await self._store.report(self._store.life, states, events)
            except StoreError as error:
                if not is_failing:
                    logger.warning("events of devices cannot be written: %s; retrying", error)
                is_failing = True
                await trio.sleep(_RETRY_DELAY)
            else:
                return
