"""Those who wait for a device to have some status, however shortly."""

from __future__ import annotations

import attrs
import trio

from galaxy_trio.events import DeviceStatus


@attrs.define(eq=False)
class _Wait:
    wanted: frozenset[DeviceStatus]
    done: trio.Event = attrs.field(factory=trio.Event)
    found: DeviceStatus | None = None


class StatusWaits:
    """The waits for one device's status."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()

    async def wait(self, wanted: frozenset[DeviceStatus]) -> DeviceStatus | None:
        """Wait for the next of these statuses, and return it; None at the end."""
        wait = _Wait(wanted)
        self._waits.add(wait)
        try:
            await wait.done.wait()
        finally:
            self._waits.discard(wait)
        return wait.found

    def tell(self, status: DeviceStatus) -> None:
        """The device has this status now."""
        for wait in self._waits:
            if wait.found is None and status in wait.wanted:
                wait.found = status
                wait.done.set()

    def end(self) -> None:
        """There will be no other status."""
        for wait in self._waits:
            wait.done.set()
