"""Large objects of connections that have ended are freed immediately, without the garbage collector."""

from __future__ import annotations

import gc
import struct
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import open_connection
from galaxy_trio.agent import open_agent, tool
from galaxy_trio.messages import DeviceInfo
from galaxy_trio.testing import PEER_URL, FaultyStream, ScriptedPeer, open_bare_peer, open_memory_server
from tests.agent.support.agent_server import call, open_commanded_agent, send_batch
from tests.server.support.clients import register_constellation, register_device
from tests.server.support.raw_client import open_raw_client

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.server import ServerTask

_MB = 2**20


@contextmanager
def _nothing_large_left() -> Generator[None]:
    """Check that the block leaves nothing large that only the garbage collector would free."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
        current, _ = tracemalloc.get_traced_memory()
        assert current < 2 * _MB
    finally:
        tracemalloc.stop()
        gc.enable()


def _part_of_message(sent: int, first: int, *, masked: bool) -> bytes:
    """The beginning of a frame of 50 MiB."""
    mask = bytes(4) if masked else b""
    return struct.pack("!BBQ", first, (0x80 if masked else 0) | 127, 50 * _MB) + mask + b" " * sent


_FIRST = pytest.mark.parametrize("first", [0x81, 0x01, 0x82], ids=["text", "fragment", "binary"])


@_FIRST
async def test_server_frees_a_message_that_did_not_complete(first: int, autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server() as server:
        with _nothing_large_left():
            async with open_raw_client(server.connect()) as client:
                await register_device(client)
                await client.send_bytes(_part_of_message(20 * _MB, first, masked=True))
                await trio.testing.wait_all_tasks_blocked()
            del client
            await trio.sleep(10)
            assert server.statistics().connections == 0


async def _open_client(peer: ScriptedPeer) -> None:
    async with open_connection(PEER_URL, "a", stream=peer.stream) as connection:
        await connection.wait_closed()


async def _open_agent(peer: ScriptedPeer) -> None:
    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return peer.stream

    async with open_agent(PEER_URL, "a", system_info=DeviceInfo("a", "linux"), connect=connect) as agent:
        await agent.wait_registered()
        await trio.sleep(10)


@_FIRST
@pytest.mark.parametrize("role", [_open_client, _open_agent], ids=["client", "agent"])
async def test_client_and_agent_free_a_message_that_did_not_complete(
    role: object, first: int, autojump_clock: trio.testing.MockClock
) -> None:
    with _nothing_large_left():
        async with trio.open_nursery() as nursery:
            async with open_bare_peer() as peer:
                nursery.start_soon(role, peer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                await peer.receive()
                peer.confirm()
                await trio.testing.wait_all_tasks_blocked()
                await peer.send_raw(_part_of_message(20 * _MB, first, masked=False))
                await trio.testing.wait_all_tasks_blocked()
                await peer.abort()
                await trio.testing.wait_all_tasks_blocked()
            del peer


async def test_idle_agent_keeps_neither_commands_nor_results(autojump_clock: trio.testing.MockClock) -> None:
    @tool
    async def copy(text: str) -> str:
        return text

    async with open_commanded_agent([copy]) as (peer, _, _):
        with _nothing_large_left():
            send_batch(peer, call("copy", text="x" * 20 * _MB))
            assert (await peer.receive()).type == "command_results"
            await trio.testing.wait_all_tasks_blocked()


async def test_server_frees_what_a_client_did_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async def session(task: ServerTask) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * 20 * _MB

    async with open_memory_server(session=session) as server, open_raw_client(server.connect()) as device:
        await register_device(device)
        with _nothing_large_left():
            async with trio.open_nursery() as nursery:
                ours, theirs = trio.testing.memory_stream_pair()
                not_read = FaultyStream(theirs)
                nursery.start_soon(server.serve_stream, not_read)
                async with open_raw_client(ours) as client:
                    await register_constellation(client)
                    not_read.stall()
                    client.send(
                        type="task",
                        status="continue",
                        client_type="constellation",
                        session_id="s",
                        target_id="device_001",
                        request="x",
                    )
                    assert (await device.receive())["type"] == "task_end"
                    assert server.statistics().bytes_held > 20 * _MB
                    not_read.reset()
                del client, ours, theirs, not_read
            await trio.sleep(10)
            assert server.statistics().bytes_held == 0
