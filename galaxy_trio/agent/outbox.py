"""A connection's queue of replies to send."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio.errors import ConnectionLost, InvalidMessage, MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio.agent.connection import DeviceConnection
    from galaxy_trio.messages import ClientMessage

logger: Final = logging.getLogger(__name__)

_MAX_QUEUED: Final = 100
"""Number of queued replies. Bounds the memory that a server can use up by sending requests without reading."""


class Outbox:
    """One connection's queue of replies to send.

    The receiver never waits for room: if device and server both stopped reading until the other one reads, neither would continue.
    """

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel["Iterable[ClientMessage]"](_MAX_QUEUED)

    def put(self, alternatives: Iterable[ClientMessage]) -> None:
        """Queue a reply: the first of `alternatives` that can be sent. If 100 are queued, it is dropped with a warning."""
        try:
            self._in.send_nowait(alternatives)
        except trio.WouldBlock:
            logger.warning("the server does not read: %d replies are queued already, one was dropped", _MAX_QUEUED)

    async def run(self, connection: DeviceConnection) -> None:
        """Send the queued replies until cancelled."""
        while True:
            # No variable here: it would keep a reply alive until the next one.
            await send_first(connection, await self._out.receive())


async def send_first(connection: DeviceConnection, alternatives: Iterable[ClientMessage]) -> bool:
    """Send the first of `alternatives` that can be sent. Returns False when the connection has ended."""
    problem: Exception | None = None
    for message in alternatives:
        try:
            await connection.send(message)
        except (InvalidMessage, MessageTooLarge) as error:
            logger.info("%s", error)
            problem = error
        except (ConnectionLost, trio.ClosedResourceError):
            return False
        else:
            return True
    logger.warning("a reply was dropped: %s", problem)
    return True
