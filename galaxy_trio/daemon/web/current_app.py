"""The application that answers requests now: each life of the daemon has one, and between two lives there is none.

Rule 12 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import JSONResponse

from galaxy_trio._concurrency.cancel_group import CancelGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_GRACE: Final = 3.0
"""Maximum seconds for pending requests when an application's block ends."""
_RETRY_AFTER: Final = {"Retry-After": "1"}


class _Stopped(Exception):
    """The application was closed before it had answered a request."""


class CurrentApp:
    """An ASGI application that passes each request to the current one, and refuses it with 503 while there is none.

    Attributes:
        reason: Why there is none, as a sentence for clients.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self._app: ASGIApp | None = None
        self._work = CancelGroup()
        # Bounded by the number of connections.
        self._pending = 0
        self._one_ended = trio.lowlevel.ParkingLot()

    @asynccontextmanager
    async def answering(self, app: ASGIApp) -> AsyncGenerator[None]:
        """Let an application answer inside the block.

        At the end of the block, pending requests have 3 s; those that are pending then are refused. After an exception or a cancellation
        they are refused immediately.
        """
        self._app = app
        try:
            yield
            self._app = None
            with trio.move_on_after(_GRACE):
                while self._pending:
                    await self._one_ended.park()
        finally:
            self._app = None
            self._work.stop(_Stopped)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GRACE):
                # They end in this step, as far as they do not wait under a shield themselves.
                await self._work.wait_stopped()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        has_begun = False

        async def watch(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            # Hypercorn's state would be lost in the middle, and the connection hang. Sending has a limit.
            with trio.CancelScope(shield=True):
                await send(message)

        if self._app is not None:
            self._pending += 1
            try:
                with self._work.guard():
                    await self._app(scope, receive, watch)
            except _Stopped:
                if has_begun:
                    # The connection is closed before the response is complete.
                    return
            else:
                return
            finally:
                self._pending -= 1
                self._one_ended.unpark_all()
        if scope["path"] == "/health":
            # The daemon itself is alive.
            await JSONResponse({"status": "live"})(scope, receive, send)
        else:
            await JSONResponse({"error": self.reason}, 503, _RETRY_AFTER)(scope, receive, send)
