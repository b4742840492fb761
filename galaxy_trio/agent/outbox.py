"""A connection's queue of replies to send."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from galaxy_trio._concurrency.limited_log import LimitedLog
from galaxy_trio.errors import ConnectionLost, InvalidMessage, MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio.agent.connection import DeviceConnection
    from galaxy_trio.messages import ClientMessage

logger: Final = logging.getLogger(__name__)

_MAX_QUEUED: Final = 100
"""Number of queued replies. Their memory counts as well, because one can be as large as the message that it answers."""


class _Reply(NamedTuple):
    """A reply that waits, and the memory that it is counted in."""

    alternatives: Iterable[ClientMessage]
    memory: MemoryShare | None
    size: int


class Outbox:
    """One connection's queue of replies to send.

    The receiver never waits for room: if device and server both stopped reading until the other one reads, neither would continue.
    """

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[_Reply](_MAX_QUEUED)
        self._dropped = LimitedLog(logger)

    def put(self, alternatives: Iterable[ClientMessage], memory: MemoryShare | None = None) -> None:
        """Queue a reply. If 100 are queued, it is dropped with a warning.

        Args:
            alternatives: The first of them that can be sent is the reply.
            memory: The connection's memory share, if the reply holds parts of the message that is being delivered. That message counts
                until the reply is sent.
        """
        size = 0 if memory is None else memory.message_size
        try:
            self._in.send_nowait(_Reply(alternatives, memory, size))
        except trio.WouldBlock:
            self._dropped.problem(
                "the server does not read: %d replies are queued already, one was dropped", _MAX_QUEUED
            )
        else:
            if memory is not None:
                memory.add(size)

    async def run(self, connection: DeviceConnection) -> None:
        """Send the queued replies until cancelled."""
        while True:
            # No variable here: it would keep a reply alive until the next one.
            await _send(await self._out.receive(), connection)


async def _send(reply: _Reply, connection: DeviceConnection) -> None:
    try:
        await send_first(connection, reply.alternatives)
    finally:
        if reply.memory is not None:
            reply.memory.add(-reply.size)


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
