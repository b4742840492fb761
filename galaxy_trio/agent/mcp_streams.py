"""The streams of a session with an MCP server, watched for what the SDK's session does not report, and does not limit."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import anyio
import trio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

if TYPE_CHECKING:
    from mcp.shared._stream_protocols import ReadStream, WriteStream
    from mcp.shared.message import SessionMessage
    from mcp_types import RequestId

_MAX_UNANSWERED: Final = 100
"""Number of a server's requests that wait to be answered. The SDK has a task for each, which waits until the server reads the answer."""


class SessionEvents:
    """Notifies a waiter of a changed list of tools and of the server's end."""

    def __init__(self) -> None:
        self._ended = False
        self._changed = False
        self._waiters = trio.lowlevel.ParkingLot()
        self.unanswered: Counter[RequestId] = Counter()
        """The server's requests that have no answer, by their ids: more than one has the same if the server repeats it."""
        self.problem: str | None = None
        """Why the session was ended from this side; None if it was not."""

    def end(self, problem: str | None = None) -> None:
        """Notify of the end of the session."""
        self._ended = True
        self.problem = self.problem or problem
        self._waiters.unpark_all()

    def change(self) -> None:
        """Notify of a changed list of tools."""
        self._changed = True
        self._waiters.unpark_all()

    async def wait_list_changed(self) -> bool:
        """Wait for a changed list of tools. Returns False when the session has ended."""
        while not self._ended:
            if self._changed:
                self._changed = False
                return True
            await self._waiters.park()
        return False


class WatchedInput(ObjectReceiveStream["SessionMessage"]):
    """A session's input stream. Reports its end, and ends when too many requests of the server wait for their answers."""

    def __init__(self, stream: ReadStream[SessionMessage], events: SessionEvents) -> None:
        self._stream = stream
        self._events = events

    async def receive(self) -> SessionMessage:
        """Return the next message. Raises `anyio.EndOfStream` at the end."""
        item = await self._stream.receive()
        message, unanswered = item.message, self._events.unanswered
        if isinstance(message, JSONRPCRequest):
            unanswered[coerce_request_id(message.id)] += 1
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            # A request that the server has cancelled is not answered. Of several with the same id, the SDK cancels only one.
            cancelled = cancelled_request_id_from_params(message.params)
            if cancelled is not None and unanswered[key := coerce_request_id(cancelled)] == 1:
                del unanswered[key]
        if unanswered.total() > _MAX_UNANSWERED:
            self._events.end(f"it sent more than {_MAX_UNANSWERED} requests without reading the answers")
            raise anyio.EndOfStream
        return item

    async def aclose(self) -> None:
        """Close the stream and report its end."""
        self._events.end()
        await self._stream.aclose()


class WatchedOutput(ObjectSendStream["SessionMessage"]):
    """A session's output stream. Counts the answers that the server has read."""

    def __init__(self, stream: WriteStream[SessionMessage], events: SessionEvents) -> None:
        self._stream = stream
        self._events = events

    async def send(self, item: SessionMessage) -> None:
        """Send a message."""
        await self._stream.send(item)
        message, unanswered = item.message, self._events.unanswered
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
            key = coerce_request_id(message.id)
            unanswered[key] -= 1
            if unanswered[key] <= 0:
                del unanswered[key]

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
