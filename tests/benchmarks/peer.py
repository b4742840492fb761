"""The peer of the benchmarks, a process of its own: a WebSocket server with replies made in advance, so that it costs little.

It prints its URL, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from typing import Final, NamedTuple, cast

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from .wire import LARGE, LIMIT, MARGIN, MIB, UNKNOWN_REPLIES, Task, recorded

_REQUEST_ID: Final = b'"request_id":"'
_SESSION_ID: Final = b'"session_id":"'
_SHORT_TASK: Final = b'"request":"%b"' % Task.SHORT.encode()
_TEXT: Final = 0x81
_IN_1_BYTE: Final = 125
_IN_2_BYTES: Final = 126
_IN_8_BYTES: Final = 127
_LINE: Final = b"The window of the text editor is open, and holds the report of the day. "


class Template(NamedTuple):
    """A reply made in advance, in two parts: an id goes between them."""

    head: bytes
    tail: bytes

    def with_id(self, value: bytes) -> bytes:
        """The reply."""
        return self.head + value + self.tail


def _template(text: str, field: str) -> Template:
    value = cast("dict[str, str]", json.loads(text))[field]
    head, found, tail = text.partition(f'"{field}":"{value}"')
    if not found:
        raise ValueError(f"no {field} in {text!r}")
    return Template(f'{head}"{field}":"'.encode(), f'"{tail}'.encode())


_CONFIRMATION: Final = recorded("registration_ok", "server", "heartbeat").encode()
_ACKNOWLEDGEMENT: Final = _template(recorded("task_completed", "server", "heartbeat"), "session_id")
_DEVICE_INFO: Final = _template(recorded("device_info_ok", "server", "device_info_response"), "response_id")
_END: Final = _template(recorded("task_completed", "server", "task_end"), "session_id")
_UP_TO_RESULT: Final = _END._replace(tail=_END.tail[: _END.tail.index(b'"result":')])


def _short_frame(text: bytes) -> bytes:
    """A frame of at most 64 KiB, made without the protocol: it costs a fifth of `ServerConnection.send`."""
    size = len(text)
    if size <= _IN_1_BYTE:
        return struct.pack("!BB", _TEXT, size) + text
    return struct.pack("!BBH", _TEXT, _IN_2_BYTES, size) + text


def _filled(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece))


def _result(task: Task) -> bytes:
    """What follows ``"result":`` in a task's end, to the end of the message."""
    room = LIMIT - MARGIN
    match task:
        case Task.OTHER | Task.SHORT | Task.SILENCE | Task.UNKNOWN:
            return b'"%b"}' % _LINE.ljust(MIB, b"x")
        case Task.LARGE_STRING:
            return b'"%b"}' % _LINE.ljust(LARGE, b"x")
        case Task.LIMIT_STRING:
            return b'"%b"}' % _filled(_LINE, room)


def _answer_short(connection: ServerConnection, text: bytes) -> None:
    """Acknowledge a task, and end it: each a write of its own, as a server that does something between them has it."""
    start = text.index(_SESSION_ID) + len(_SESSION_ID)
    session_id = text[start : text.index(b'"', start)]
    connection.transport.write(_short_frame(_ACKNOWLEDGEMENT.with_id(session_id)))
    connection.transport.write(_short_frame(_END.with_id(session_id)))


class Peer:
    """Answers any number of connections."""

    def __init__(self) -> None:
        self._last: tuple[Task, bytes] = (Task.OTHER, _result(Task.OTHER))

    async def converse(self, connection: ServerConnection) -> None:
        """Answer one connection until it ends."""
        try:
            while True:
                text = await connection.recv(decode=False)
                start = text.find(_REQUEST_ID, 0, 1000) + len(_REQUEST_ID)
                if start >= len(_REQUEST_ID):
                    await connection.send(_DEVICE_INFO.with_id(text[start : text.index(b'"', start)]), text=True)
                elif _SHORT_TASK in text:
                    _answer_short(connection, text)
                elif await self._answer(connection, text) is Task.SILENCE:
                    async for _ in connection:
                        pass
        except ConnectionClosed:
            return

    async def _answer(self, connection: ServerConnection, text: bytes) -> Task:
        message = cast("dict[str, str]", json.loads(text))
        if message["type"] != "task":
            await connection.send(_CONFIRMATION, text=True)
            return Task.OTHER
        session_id = message["session_id"].encode()
        await connection.send(_ACKNOWLEDGEMENT.with_id(session_id), text=True)
        task = Task(message["request"]) if message["request"] in list(Task) else Task.OTHER
        if task is Task.UNKNOWN:
            for number in range(UNKNOWN_REPLIES):
                await connection.send(_END.with_id(b"unknown %d" % number), text=True)
        if self._last[0] is not task:
            self._last = task, _result(task)
        beginning, result = _UP_TO_RESULT.with_id(session_id) + b'"result":', self._last[1]
        # One frame, written in two parts: `send` would copy the large one several times first.
        connection.transport.write(struct.pack("!BBQ", _TEXT, _IN_8_BYTES, len(beginning) + len(result)) + beginning)
        connection.transport.write(result)
        return task


async def main() -> None:
    """Serve until standard input ends."""
    peer = Peer()
    # A client that sends far ahead must not be held up: its requests are small, and their number is bounded by the client.
    async with serve(
        peer.converse, "127.0.0.1", 0, compression=None, max_size=None, max_queue=None, ping_interval=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ws://127.0.0.1:{port}/ws", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
