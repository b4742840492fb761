"""Receives a connection's messages: decodes each and delivers it to the connection's receiver."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio

from galaxy_trio._concurrency.slices import next_slice
from galaxy_trio.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio._connection.receiver import Receiver
    from galaxy_trio._transport.interface import WebSocket

_SIZE_OF_VALUE: Final = 100
"""About how many bytes of memory a value or key takes, besides its text."""

logger: Final = logging.getLogger(__name__)

In = TypeVar("In")
Out_co = TypeVar("Out_co", covariant=True)


class Decoder(Protocol[Out_co]):
    """Makes messages from frames. Raises `InvalidMessage` for a frame that is no message."""

    def __call__(self, text: str | bytes) -> Out_co:
        """Make a message in one step."""
        ...

    def needs_slices(self, text: str | bytes, max_values: int) -> bool:
        """Whether making the message in one step could hold the event loop for long."""
        ...

    def in_slices(self, text: str | bytes, max_values: int) -> Generator[int, None, Out_co]:
        """Make a message, one slice of the work with each `next`, which returns the number of its values and keys."""
        ...


class Inbound(Generic[In]):
    """The receiving half of a link.

    Args:
        transport: The WebSocket.
        receiver: Takes the messages.
        decode: Makes a message from a frame.
        peer: The name of the other end, for the log.
        max_values: The number of values and keys that a message may have.
        pause: Read no further message while the send buffer is full.
    """

    def __init__(
        self,
        transport: WebSocket,
        receiver: Receiver[In],
        decode: Decoder[In],
        *,
        peer: str,
        max_values: int,
        pause: bool,
    ) -> None:
        self._transport = transport
        self._receiver = receiver
        self._decode = decode
        self._peer = peer
        self.max_values: int = max_values
        """The number of values and keys that a message may have. A change concerns messages that have not been decoded."""
        self._pause = pause
        self._slices: Generator[int, None, In] | None = None
        self._may_deliver = trio.Event()
        self._may_deliver.set()
        self.messages_received: int = 0
        self.stopped: bool = False
        """Whether the end was reported already, so that no request waits for a message."""

    async def run(self) -> None:
        """Receive until the WebSocket ends. Unless paused, it waits only for the socket. Other tasks run between the slices of a message.

        Raises:
            TransportEnded: The WebSocket has ended.
        """
        while True:
            if not self._may_deliver.is_set():
                await self._may_deliver.wait()
            if self._pause and not self._transport.has_room:
                await self._transport.wait_for_room()
            # No variable here: it would keep a message alive until the next one arrives.
            self._deliver(await self._transport.receive())
            self._deliver_received()
            while self._slices is not None:
                await self._deliver_in_slices(self._slices)
                self._deliver_received()

    def pause_until(self, event: trio.Event) -> None:
        """Deliver no further message until an event."""
        self._may_deliver = event

    def _deliver_received(self) -> None:
        """Deliver the texts that arrived together with the last one, up to one that must be decoded in slices."""
        while self._slices is None and self._may_deliver.is_set() and (not self._pause or self._transport.has_room):
            text = self._transport.receive_nowait()
            if text is None:
                return
            self._deliver(text)

    def _deliver(self, text: str | bytes) -> None:
        if self.stopped:
            return
        self.messages_received += 1
        self._transport.memory.message_size = sys.getsizeof(text)
        logger.debug("from %s: %s characters", self._peer, len(text))
        if self._decode.needs_slices(text, self.max_values):
            self._slices = self._decode.in_slices(text, self.max_values)
            return
        try:
            message = self._decode(text)
        except InvalidMessage as invalid:
            self._deliver_invalid(invalid)
        else:
            self._deliver_message(message)

    async def _deliver_in_slices(self, slices: Generator[int, None, In]) -> None:
        self._slices = None
        memory = self._transport.memory
        size = memory.message_size
        try:
            while True:
                # Also before the first one: a large text was joined in this step.
                await trio.lowlevel.checkpoint()
                taken = next_slice(slices) * _SIZE_OF_VALUE
                memory.add(taken)
                memory.message_size += taken
        except StopIteration as decoded:
            if not self.stopped:
                self._deliver_message(decoded.value)
        except InvalidMessage as invalid:
            if not self.stopped:
                self._deliver_invalid(invalid)
        finally:
            memory.add(size - memory.message_size)

    def _deliver_message(self, message: In) -> None:
        # From here on it is counted by those that keep it.
        self._transport.memory.set_incoming(0)
        self._receiver.received(message)

    def _deliver_invalid(self, invalid: InvalidMessage) -> None:
        logger.debug("%s: %s", self._peer, invalid)
        self._receiver.received_invalid(invalid)
