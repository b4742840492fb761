"""The bytes that all connections of one server, agent or client hold together, and their limit.

Counted is the memory of messages that have not arrived whole, of decoded messages that wait, of send buffers, and of messages that
wait for room in one.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

logger: Final = logging.getLogger(__name__)

_PRESSURE: Final = 0.75
"""The part of the budget above which connections with more than their share are not read."""
_PATIENCE: Final = 5.0
"""Seconds without progress after which the heaviest connection is closed."""
_PROGRESS: Final = 0.01
"""The part of the budget that must be released in this time to count as progress."""


class MemoryBudget:
    """The memory of a group of connections.

    Above 75 % of the limit, a connection that holds more than the limit divided by the number of connections is not read. At 100 %, or
    when 5 s have passed above 75 % without progress, the heaviest connection is closed with code 1013, until less than 75 % is held;
    those whose peer has not registered come first.

    Args:
        limit: Bytes that they may hold together.

    Attributes:
        limit: As given.
        held: Bytes that are held now.
        closed: The number of connections that were closed because of the limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: int = 0
        self.closed: int = 0
        self._shares: set[MemoryShare] = set()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def is_short(self) -> bool:
        """Whether so much is held that some connections are not read."""
        return self.held > _PRESSURE * self.limit

    def open_share(self) -> MemoryShare:
        """Open the share of one more connection, until `MemoryShare.close`."""
        share = MemoryShare(self)
        self._shares.add(share)
        return share

    def _add(self, size: int) -> None:
        self.held += size
        if size < 0:
            if not self.is_short and self._changed:
                self._changed.unpark_all()
        elif self.held >= self.limit:
            while self.is_short and self._shares:
                self._close_heaviest()

    def _close_heaviest(self) -> None:
        heaviest = max(self._shares, key=lambda share: (not share.registered and share.held > 0, share.held))
        self.closed += 1
        logger.warning(
            "closing a connection that holds %d bytes: all connections hold %d together, of %d (memory_budget)",
            heaviest.held,
            self.held,
            self.limit,
        )
        heaviest.close()
        heaviest.on_shortage()

    def _has_too_much(self, share: MemoryShare) -> bool:
        return self.is_short and share in self._shares and share.held > self.limit / len(self._shares)

    async def _wait_while_too_much(self, share: MemoryShare) -> None:
        while self._has_too_much(share):
            before = self.held
            with trio.move_on_after(_PATIENCE) as waiting:
                await self._changed.park()
            if waiting.cancelled_caught and self.is_short and self.held > before - _PROGRESS * self.limit:
                self._close_heaviest()

    def _remove(self, share: MemoryShare) -> None:
        if share in self._shares:
            self._shares.remove(share)
            self._add(-share.held)
            self._changed.unpark_all()


class MemoryShare:
    """What one connection holds. Made by `MemoryBudget.open_share`."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._incoming = 0
        self._is_open = True
        self.held: int = 0
        """Bytes that the connection holds."""
        self.registered: bool = False
        """Whether the peer has registered. Connections of others are closed first."""
        self.message_size: int = 0
        """Bytes of the message that is being delivered."""
        self.on_shortage: Callable[[], object] = _do_nothing
        """Called in the step in which the connection must be closed because of the budget. Must neither block nor raise."""

    def add(self, size: int) -> None:
        """Count bytes that the connection holds from now on, or no longer if `size` is negative."""
        self.held += size
        if self._is_open:
            self._budget._add(size)  # noqa: SLF001  # same module

    def set_incoming(self, size: int) -> None:
        """Set the number of received bytes of a message that has not arrived whole."""
        if size != self._incoming:
            change, self._incoming = size - self._incoming, size
            self.add(change)

    @contextmanager
    def holding(self, size: int) -> Generator[None]:
        """Count bytes for the length of the block."""
        self.add(size)
        try:
            yield
        finally:
            self.add(-size)

    @property
    def has_too_much(self) -> bool:
        """Whether memory is short, and the connection holds more than the budget divided by the number of connections."""
        return self._budget._has_too_much(self)  # noqa: SLF001

    async def wait_while_too_much(self) -> None:
        """Wait while `has_too_much`. After 5 s without progress the heaviest connection is closed, perhaps this one."""
        await self._budget._wait_while_too_much(self)  # noqa: SLF001

    def close(self) -> None:
        """End the share: what the connection still holds is released, or about to be."""
        self._budget._remove(self)  # noqa: SLF001
        self._is_open = False


def _do_nothing() -> None:
    """Close nothing: the connection is not running."""
