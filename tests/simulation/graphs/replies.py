"""Lets actions follow the ends of tasks in the step in which they arrive."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

import trio

from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio._connection.request_types import RequestKind

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio._connection.request_types import Reply, Routing


class Replies:
    """Counts the ends of tasks that the constellation's connections have received, before anything follows from them."""

    def __init__(self) -> None:
        self._count = 0
        self._arrived = trio.lowlevel.ParkingLot()

    @contextmanager
    def counting(self) -> Generator[None]:
        """Count during the block."""
        route_end = PendingReplies._route_end

        def counted(pending: PendingReplies, key: str | None, kind: RequestKind, reply: Reply) -> Routing:
            routing = route_end(pending, key, kind, reply)
            if kind is RequestKind.TASK:
                self._count += 1
                self._arrived.unpark_all()
            return routing

        with mock.patch.object(PendingReplies, "_route_end", counted):
            yield

    async def wait(self, count: int) -> None:
        """Wait until so many ends have arrived."""
        while self._count < count:
            await self._arrived.park()
