"""What a client may send before it has registered."""

from __future__ import annotations

import struct

import pytest
import trio
import trio.testing

from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import open_memory_server
from tests.server.support.clients import DEVICE
from tests.server.support.raw_client import open_raw_client

_LIMIT = 64 * 1024


def _header(size: int, first: int = 0x81) -> bytes:
    """The header of a masked frame of at least 126 bytes, whose mask changes nothing."""
    length = struct.pack("!BH", 0x80 | 126, size) if size < 2**16 else struct.pack("!BQ", 0x80 | 127, size)
    return bytes([first]) + length + bytes(4)


def _registration(size: int) -> bytes:
    text = f'{{"type":"register","status":"ok","client_id":"{DEVICE}","metadata":{{"x":""}}}}'.encode()
    return text.replace(b'""', b'"' + b"x" * (size - len(text)) + b'"')


async def test_first_message_of_64_kib_is_accepted_and_larger_ones_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        await client.send_bytes(_header(_LIMIT) + _registration(_LIMIT))
        assert (await client.receive())["type"] == "heartbeat"
        client.send(type="heartbeat", status="ok", metadata={"x": "x" * 10 * _LIMIT})
        assert (await client.receive())["type"] == "heartbeat"


@pytest.mark.parametrize("first", [0x81, 0x01, 0x82], ids=["text", "a fragment", "binary"])
async def test_larger_first_message_ends_the_connection_at_its_header(
    first: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        start = trio.current_time()
        await client.send_bytes(_header(_LIMIT + 1, first))
        assert await client.close_code() == 1009
        assert trio.current_time() == start


async def test_registration_of_many_values_is_refused_because_the_description_is_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_server() as server:
        async with open_raw_client(server.connect()) as client:
            client.send(type="register", status="ok", client_id=DEVICE, metadata={"system_info": {"x": [0] * 2000}})
            assert "more than 2,000 values" in str((await client.receive())["error"])
            assert await client.close_code() == 1008
        async with open_raw_client(server.connect()) as client:
            client.send(type="register", status="ok", client_id=DEVICE, metadata={"system_info": {"x": [0] * 1900}})
            assert (await client.receive())["type"] == "heartbeat"
            client.send(type="heartbeat", status="ok", metadata={"x": [0] * 100_000})
            assert (await client.receive())["type"] == "heartbeat"


@pytest.mark.parametrize("cut", [0, 2, 4], ids=["a whole header", "its length apart", "the end of its length apart"])
async def test_fragments_count_together(cut: int, autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        half = _LIMIT // 2 + 1
        header = _header(half, 0x80)
        await client.send_bytes(_header(half, 0x01) + b"x" * half + header[:cut])
        await trio.testing.wait_all_tasks_blocked()
        await client.send_bytes(header[cut:])
        assert await client.close_code() == 1009


async def test_limit_can_be_changed(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(max_registration_size=1000, max_message_size=2000)
    async with open_memory_server(limits=limits) as server, open_raw_client(server.connect()) as client:
        await client.send_bytes(_header(1001))
        assert await client.close_code() == 1009
    limits = ServerLimits(max_message_size=1000)
    async with open_memory_server(limits=limits) as server, open_raw_client(server.connect()) as client:
        await client.send_bytes(_header(1001))
        assert await client.close_code() == 1009


async def test_client_that_says_nothing_is_closed_after_10_s(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        start = trio.current_time()
        assert await client.close_code() == 1008
        assert trio.current_time() - start == pytest.approx(10)
