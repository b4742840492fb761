"""A WebSocket through the Sans-I/O protocol of websockets. This file and `websockets_messages.py` are those that know that package.

Whoever receives reads the socket and feeds the protocol itself: no task, lock or channel lies between. What goes out goes through the send
buffer of `BufferedStream`: frames are taken whole and in one step, and control frames never wait.
"""

from __future__ import annotations

import http.client
import logging
from typing import TYPE_CHECKING, Final, cast

import trio
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, InvalidUpgrade, NegotiationError
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI
from wsproto.frame_protocol import CloseReason

from galaxy_trio.buffered_stream import BufferedStream
from galaxy_trio.inbound import InboundWatch
from galaxy_trio.text_frames import text_frame
from galaxy_trio.websocket import (
    ABNORMAL,
    LAST_WORDS,
    SWITCHING_PROTOCOLS,
    TransportEnded,
    broke_off,
    check_size,
    closed_by_us,
    handshake_error,
    is_hopeless,
    not_let_in,
)
from galaxy_trio.websockets_messages import IncomingMessages

try:
    from websockets.speedups import apply_mask
except ImportError:  # where the package has no compiled part
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.protocol import Protocol

    from galaxy_trio.url import Target

_RECEIVE_BYTES: Final = 256 * 1024
_LARGE_RECEIVE_BYTES: Final = 2**20
"""For a frame that is known to be large: fewer passes of the scheduler."""
_OF_THE_HANDSHAKE: Final = frozenset(
    {"connection", "host", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol",
     "sec-websocket-version", "upgrade"}
)  # fmt: skip
# The protocol would log requests, in which tokens are. No configuration reaches a logger that is made like this.
_silent = logging.Logger("galaxy_trio.websockets", logging.CRITICAL + 1)  # noqa: LOG001


class WebsocketsTransport:
    """One end of a WebSocket over a stream; see `galaxy_trio.websocket.WebSocket`.

    Args:
        stream: Belongs to the transport from now on.
        peer: Who is at the other end, for error messages.
        client: Whether this is the client's end, which masks its frames.
        max_message_size: Bytes of a message, both ways.
    """

    def __init__(self, stream: trio.abc.Stream, *, peer: str, client: bool, max_message_size: int) -> None:
        self._peer = peer
        self._client = client
        self._max_message_size = max_message_size
        self._watch = InboundWatch(max_message_size, strict=True)
        self._stream = BufferedStream(stream, self._watch)
        self._after_head: bytes | bytearray = b""
        self._incoming: IncomingMessages | None = None
        self._receiving = False
        self._reading = False
        self._turn = trio.lowlevel.ParkingLot()
        self._closing = False
        self._last_words = False

    # ---- opening

    async def run_client(
        self,
        target: Target,
        headers: list[tuple[bytes, bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Open the WebSocket as a client. The receiver reads it from then on.

        Args:
            target: Whose host and resource are asked for.
            headers: Sent with the handshake.
            task_status: Told when the WebSocket is open.

        Raises:
            HandshakeRejected: The server answered with another status than 101.
            ConnectFailed: It gave no answer, or one that is no WebSocket's.
        """
        # What is asked for is put together here: the URI has no part in it, and given headers are bytes.
        uri = WebSocketURI(target.secure, "localhost", target.port, "/", "")
        protocol = ClientProtocol(uri, max_size=None, logger=_silent)
        own = [f"{name}: {value}" for name, value in protocol.connect().headers.raw_items() if name != "Host"]
        lines = [
            line.encode("ascii") for line in (f"GET {target.resource} HTTP/1.1", f"Host: {target.host_header}", *own)
        ]
        given = [name + b": " + value for name, value in headers]
        self._stream.take(b"\r\n".join([*lines, *given, b"", b""]))
        await self._read_head(protocol)
        fault = None if protocol.handshake_exc is None else _fault(protocol.handshake_exc)
        if fault is not None or self._watch.in_handshake or is_hopeless(self._watch):
            # Not from what the protocol raised: it quotes the server's answer, which may quote the URL and the token in it.
            raise handshake_error(self._watch, self._peer, fault) from self._stream.end_cause
        self._open(protocol)
        task_status.started()

    async def run_server(
        self,
        judge: Callable[[str, list[tuple[bytes, bytes]]], int],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer a client's handshake. The receiver reads the WebSocket from then on.

        Args:
            judge: Given the request's target with its query, and its headers, answers with the HTTP status: 101 to accept.
            task_status: Told when the WebSocket is open.

        Raises:
            ConnectFailed: The client was rejected, or did not ask for a WebSocket.
        """
        protocol = ServerProtocol(max_size=None, logger=_silent)
        await self._read_head(protocol)
        if self._watch.in_handshake or self._watch.violation:
            # It has gone, or never meant to ask: there is nothing to answer.
            raise not_let_in(self._peer, None) from self._stream.end_cause
        response, rejected = _answer(protocol, judge)
        if response.status_code != SWITCHING_PROTOCOLS:
            self._stream.take(response.serialize())
            with trio.move_on_after(LAST_WORDS):
                await self._stream.flush()
            # Not from what the protocol raised: it quotes the request's first line, which may have the token in it.
            raise not_let_in(self._peer, rejected)
        protocol.send_response(response)
        self._open(protocol)
        task_status.started()

    async def _read_head(self, protocol: ClientProtocol | ServerProtocol) -> None:
        """Read the head of the other end's handshake, and feed it; what comes after it is kept.

        Return at its end, the stream's end, or as soon as it can be no good.
        """
        while self._watch.in_handshake and (data := await self._receive_some(_RECEIVE_BYTES)):
            allowed = self._watch.feed(data)
            # Not HTTP is, for one, TLS: a client of that waits for an answer, and ends no line.
            if self._watch.violation or (is_hopeless(self._watch) if self._client else self._watch.begins_unlike_http):
                return
            protocol.receive_data(data[:allowed])
            self._after_head = data[allowed:]

    def _open(self, protocol: ClientProtocol | ServerProtocol) -> None:
        # The handshake's own, which has been judged by now.
        protocol.events_received()
        self._take_answers(protocol)
        self._incoming = IncomingMessages(protocol, self._watch, self._max_message_size)
        self._incoming.feed(self._after_head)
        self._after_head = b""

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket handshake has succeeded, however long ago."""
        return self._incoming is not None

    # ---- sending

    @property
    def has_room(self) -> bool:
        """Whether a message may be sent now, without waiting."""
        return self._stream.has_room

    async def wait_for_room(self) -> None:
        """Return when a message may be sent, with no checkpoint since; or when nothing more can be. First come, first served."""
        await self._stream.wait_for_room()

    async def wait_stuck(self, seconds: float) -> None:
        """Return when the send buffer has been above its high-water mark for so long without a break: the peer does not read."""
        await self._stream.wait_stuck(seconds)

    def check_size(self, text: str) -> None:
        """Raise `MessageTooLarge` for a message above the limit."""
        check_size(text, self._max_message_size, self._peer)

    def send_nowait(self, text: str) -> None:
        """Send a message: whole, in one step. Never blocks; who waits for room first keeps what is held bounded."""
        self._stream.append(text_frame(text, masked=self._client, mask=apply_mask))

    def ping_nowait(self) -> None:
        """Send a WebSocket ping, ahead of what waits. The pong counts as something received, and is not waited for."""
        self._stream.append_ping(Frame(Opcode.PING, b"").serialize(mask=self._client))

    @property
    def bytes_held(self) -> int:
        """Bytes that were sent and are not yet written."""
        return self._stream.held

    async def run_writer(self) -> None:
        """Write what is sent, for as long as the stream lives."""
        await self._stream.run_writer()

    def _take_answers(self, protocol: Protocol) -> None:
        """Send what the protocol has to say of its own. What is empty would end the stream, which is closed when all is said."""
        for frame in protocol.data_to_send():
            if frame:
                self._stream.take(frame)

    # ---- receiving

    @property
    def last_received(self) -> float:
        """When any byte last came in, on trio's clock."""
        return self._stream.last_received

    async def receive(self) -> str | bytes:
        """Receive the next message: text, or the bytes of a binary frame. Cancelling loses nothing.

        Raises:
            TransportEnded: The WebSocket has ended.
            trio.BusyResourceError: Another task is receiving. It goes on undisturbed.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection: there can be one")
        if self._incoming is None:
            raise TransportEnded("the WebSocket was never opened", ABNORMAL)
        self._receiving = True
        try:
            while True:
                await trio.lowlevel.checkpoint_if_cancelled()
                if (message := self._incoming.next()) is not None:
                    return message
                if (ended := self._incoming.ended) is not None:
                    break
                await self._read_on(self._incoming)
        finally:
            self._receiving = False
            self._turn.unpark_all()
        raise closed_by_us() if self._closing else TransportEnded(ended.reason, ended.code, ended.cause)

    async def _read_on(self, incoming: IncomingMessages) -> None:
        """Read some frames, or wait while another task does. Other tasks have had their turn before each time."""
        if self._reading:
            await self._turn.park()
            return
        self._reading = True
        try:
            if incoming.is_unread:
                await trio.lowlevel.checkpoint()
            elif data := await self._receive_some(max(_RECEIVE_BYTES, min(_LARGE_RECEIVE_BYTES, self._watch.missing))):
                incoming.feed(data)
            else:
                incoming.ended = broke_off(self._stream.end_cause)
                return
            incoming.step()
            if incoming.close_with is None:
                self._take_answers(incoming.protocol)
            elif not self._stream.close_frame_taken:
                close = Close(incoming.close_with, "").serialize()
                self._stream.take(Frame(Opcode.CLOSE, close).serialize(mask=self._client))
            self._last_words = incoming.ended is not None
        finally:
            self._reading = False
            self._turn.unpark_all()

    async def _receive_some(self, max_bytes: int) -> bytes | bytearray:
        """What comes in next; nothing at the end, which `BufferedStream.end_cause` tells the cause of."""
        try:
            return await self._stream.receive_unread(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    # ---- closing

    async def aclose(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close in good order: write what was sent, say goodbye, wait for the answer. Cancelling closes at once."""
        self._closing = True
        try:
            if self._incoming is not None:
                protocol = self._incoming.protocol
                if not self._stream.close_frame_taken:
                    protocol.send_close(code, reason)
                    self._take_answers(protocol)
                while self._incoming.ended is None:
                    if self._receiving:
                        await self._turn.park()
                    else:
                        # Somebody has to read the answer. What else comes is nobody's any more.
                        await self._read_on(self._incoming)
                        self._incoming.clear()
                await self._stream.flush()
        finally:
            await self._stream.force_close()

    async def abort(self) -> None:
        """Close the socket now, also under cancellation; only last words that explain it have a second to go out."""
        self._closing = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * LAST_WORDS):
            if self._last_words:
                await self._stream.aclose()
            else:
                await self._stream.force_close()


def _answer(
    protocol: ServerProtocol, judge: Callable[[str, list[tuple[bytes, bytes]]], int]
) -> tuple[Response, int | None]:
    """What to answer to a client's handshake that has come in, and with which status the judge rejects it, if it does."""
    events = cast("list[Request]", protocol.events_received())
    if not events:
        return _refusal(http.HTTPStatus.BAD_REQUEST), None
    request = events[0]
    response = protocol.accept(request)
    if response.status_code != SWITCHING_PROTOCOLS:
        return _refusal(response.status_code), None
    # As bytes again: versions of the package differ in what they make of those above ASCII, and none says that they are wrong.
    headers = [
        (name.lower(), value.encode("latin-1", "surrogateescape")) for name, value in request.headers.raw_items()
    ]
    hosts = [(b"host", value) for name, value in headers if name == "host"]
    if len(hosts) != 1 or not request.path.isascii():
        return _refusal(http.HTTPStatus.BAD_REQUEST), None
    others = [(name.encode("ascii"), value) for name, value in headers if name not in _OF_THE_HANDSHAKE]
    status = judge(request.path, hosts + others)
    return (response, None) if status == SWITCHING_PROTOCOLS else (_refusal(status), status)


def _refusal(status: int) -> Response:
    headers = Headers([("Connection", "close"), ("Content-Length", "0")])
    return Response(status, http.client.responses.get(status, ""), headers)


def _fault(error: Exception) -> str:
    """What is wrong with a server's answer, in words of our own only."""
    match error:
        case InvalidUpgrade(name="Upgrade"):
            return "missing header, 'upgrade: websocket'"
        case InvalidUpgrade():
            return "missing header, 'connection: upgrade'"
        case InvalidHeader(name="Sec-WebSocket-Accept"):
            return "bad accept token"
        case NegotiationError():
            return "unrecognized subprotocol" if "subprotocol" in str(error) else "unrecognized extension"
        case _:
            return "bad http message"
