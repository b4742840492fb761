"""The peer of the event loop's benchmark: sends messages of every shape to a client, a server or an agent that is measured.

It prints its URL, and ends when its standard input does. A task's request is a `Delivery` or `Results`.
A device gets as many commands as its name says.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from typing import TYPE_CHECKING, Final, cast

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from .deliveries import Delivery, Ending, Kind, Receiver, Results
from .shapes import make_value
from .wire import DEVICE_ID

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection

_WHOLE_TEXT, _FIRST_TEXT, _CONTINUATION, _LAST = 0x81, 0x01, 0x00, 0x80
_MASKED: Final = 0x80
_IN_8_BYTES: Final = 127
_FRAGMENT: Final = 2**16
_TIMEOUT: Final = 60.0

_DEVICE: Final = {
    "type": "register",
    "status": "ok",
    "client_type": "device",
    "client_id": DEVICE_ID,
    "metadata": {"platform": "linux", "system_info": {"device_id": DEVICE_ID, "platform": "linux"}},
}
_COMMAND: Final = b'{"tool_name":"%d","tool_type":"action"}'
_RESULT: Final = b'{"status":"success"}'


def _write_frame(connection: Connection, first: int, payload: bytes, *, masked: bool) -> None:
    """Write a frame without the copies that the library makes. The mask's key is zero, which changes nothing."""
    header = struct.pack("!BBQ", first, _IN_8_BYTES | (_MASKED if masked else 0), len(payload))
    connection.transport.write(header + bytes(4 if masked else 0))
    connection.transport.write(payload)


def _write(connection: Connection, message: bytes, delivery: Delivery, *, masked: bool) -> None:
    if delivery.ending is Ending.NOT_UTF8:
        message = message[:-1] + b"\xff"
    if delivery.ending is not Ending.FRAGMENTS:
        _write_frame(connection, _WHOLE_TEXT, message, masked=masked)
        return
    for start in range(0, len(message), _FRAGMENT):
        piece, last = message[start : start + _FRAGMENT], start + _FRAGMENT >= len(message)
        # Short frames have another header.
        piece += b" " * (_FRAGMENT - len(piece))
        first = _CONTINUATION if start else _FIRST_TEXT
        _write_frame(connection, first | (_LAST if last else 0), piece, masked=masked)


async def _converse(connection: ServerConnection) -> None:
    """Answer the measured process until it ends the connection."""
    try:
        async for text in connection:
            message = cast("dict[str, str]", json.loads(text))
            session_id = message.get("session_id")
            await connection.send(json.dumps({"type": "heartbeat", "status": "ok", "session_id": session_id}))
            if session_id is not None:
                await _deliver(connection, session_id, message["request"])
            elif message["client_type"] == "device":
                await _command(connection, int(message["client_id"]))
                return
    except ConnectionClosed:
        return


async def _deliver(connection: ServerConnection, session_id: str, request: str) -> None:
    end: dict[str, str] = {"type": "task_end", "status": "completed", "session_id": session_id}
    kind, _, arguments = request.partition(" ")
    delivery = Delivery.read(arguments) if kind == Kind.DELIVERY else None
    if delivery is None or delivery.receiver is Receiver.SERVER:
        if delivery is not None:
            await _send_to_server(delivery)
        elif kind == Kind.RESULTS:
            await _answer_commands(Results.read(arguments))
        await connection.send(json.dumps(end))
        return
    value = make_value(delivery.shape, delivery.size, broken=delivery.ending is Ending.BROKEN)
    _write(connection, json.dumps(end).encode()[:-1] + b',"result":%b}' % value, delivery, masked=False)


async def _send_to_server(delivery: Delivery) -> None:
    async with connect(delivery.url, max_size=None, compression=None) as connection:
        await connection.send(json.dumps(_DEVICE))
        await connection.recv()
        value = make_value(delivery.shape, delivery.size, broken=delivery.ending is Ending.BROKEN)
        message = b'{"type":"error","status":"continue","metadata":{"x":%b}}' % value
        _write(connection, message, delivery, masked=True)
        try:
            await connection.recv()
        except ConnectionClosed:
            # A message that is not UTF-8 ends the connection.
            return


async def _answer_commands(results: Results) -> None:
    """Register as a device, and answer the first batch of commands."""
    async with connect(results.url, max_size=None, compression=None) as connection:
        await connection.send(json.dumps(_DEVICE))
        await connection.recv()
        command = cast("dict[str, str]", json.loads(await connection.recv()))
        answer = {
            "type": "command_results",
            "status": "continue",
            "session_id": command["session_id"],
            "prev_response_id": command["response_id"],
        }
        many = b",".join([_RESULT] * results.number)
        await connection.send(json.dumps(answer).encode()[:-1] + b',"action_results":[%b]}' % many, text=True)
        # The session's end.
        await connection.recv()


async def _command(connection: ServerConnection, count: int) -> None:
    """Send a device commands, and wait for their results."""
    actions = b",".join(_COMMAND % number for number in range(count))
    message = b'{"type":"command","status":"continue","session_id":"s","response_id":"r","actions":[%b]}' % actions
    await connection.send(message, text=True)
    async with asyncio.timeout(_TIMEOUT):
        while '"command_results"' not in cast("str", await connection.recv())[:1000]:
            pass


async def main() -> None:
    """Serve until standard input ends."""
    async with serve(_converse, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ws://127.0.0.1:{port}/ws", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
