"""Answers that a device gives in the step in which their question comes, and that are sent when there is room."""

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

_MOST: Final = 100
"""Answers that may wait: a server that asks on and on and reads nothing cannot make the device hold more."""


class Outbox:
    """What waits to be sent on one connection.

    The device reads on meanwhile: were it to wait with reading, and the server too, neither would ever go on.
    """

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel["Iterable[ClientMessage]"](_MOST)

    def put(self, alternatives: Iterable[ClientMessage]) -> None:
        """Send the first of these that can be sent, when there is room. Beyond 100 that wait, it is dropped with a warning."""
        try:
            self._in.send_nowait(alternatives)
        except trio.WouldBlock:
            logger.warning("the server does not read: %d answers wait already, and one is dropped", _MOST)

    async def run(self, connection: DeviceConnection) -> None:
        """Send what is put, until the connection ends."""
        async for alternatives in self._out:
            await send_first(connection, alternatives)


async def send_first(connection: DeviceConnection, alternatives: Iterable[ClientMessage]) -> bool:
    """Send the first message that can be sent. False when the connection has ended."""
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
    logger.warning("an answer was given up: %s", problem)
    return True
