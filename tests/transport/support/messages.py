"""Messages of exact sizes, whole or in fragments."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from galaxy_trio import Connection, ConnectionOptions, open_connection
from galaxy_trio._transport.text_receiver import RECEIVE_BYTES
from galaxy_trio.testing import PEER_URL, ScriptedPeer
from tests.transport.support.memory_pair import MB

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


KB = 2**10


async def confirm(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.confirm()


@asynccontextmanager
async def connect(
    peer: ScriptedPeer, *, max_message_size: int = MB, client_id: str | None = None
) -> AsyncGenerator[Connection]:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(confirm, peer)
            async with open_connection(
                PEER_URL,
                "device_001",
                stream=peer.stream,
                options=ConnectionOptions(max_message_size=max_message_size),
                client_id=client_id,
            ) as connection:
                yield connection


def info_reply(request_id: str | None, size: int) -> str:
    """Make a reply of exactly `size` bytes, most of them in characters of two bytes."""
    info = {"device_id": "device_001", "platform": "linux", "hostname": ""}
    reply = {"type": "device_info_response", "status": "ok", "response_id": request_id, "result": info}
    missing = size - len(json.dumps(reply))
    info["hostname"] = "é" * (missing // 2) + "x" * (missing % 2)
    text = json.dumps(reply, ensure_ascii=False)
    assert len(text.encode()) == size > len(text)
    return text


FLOOD = 4 * MB
FEW = 3 * RECEIVE_BYTES
"""Bytes that may be read before every part knows of the end: the piece with the violation, and one that was requested by then."""


def in_fragments(pieces: list[bytes]) -> list[bytes]:
    """Make the frames of one text message. Its pieces need not be whole characters."""
    heads = [0x01, *[0x00] * (len(pieces) - 1)]
    heads[-1] |= 0x80
    return [bytes([head, len(piece)]) + piece for head, piece in zip(heads, pieces, strict=True)]
