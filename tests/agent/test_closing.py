"""The end of an agent's block."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio.agent import open_agent
from galaxy_trio.testing import PEER_URL, FaultyStream, ScriptedPeer, open_memory_server
from tests.agent.support.agent_server import DEVICE, INFO, open_agent_server, open_commanded_agent


async def test_leaving_the_block_closes_with_a_close_handshake() -> None:
    async with open_commanded_agent() as (peer, agent, _):
        pass
    assert (await peer.wait_ended()).code == 1000
    assert peer.stream.closed
    assert not agent.registered


async def test_exception_of_the_block_comes_out_unchanged_after_a_close_handshake() -> None:
    error = ValueError("mine")
    async with open_memory_server() as server:
        streams: list[FaultyStream] = []

        async def connect() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            streams.append(FaultyStream(server.connect()))
            return streams[-1]

        with pytest.raises(ValueError, match="mine") as caught:
            async with open_agent(server.url, DEVICE, system_info=INFO, connect=connect):
                raise error
        assert caught.value is error
        assert [stream.closed for stream in streams] == [True]


async def test_cancelling_the_block_closes_immediately(autojump_clock: trio.testing.MockClock) -> None:
    async with open_agent_server() as server:
        peers: list[ScriptedPeer] = []

        async def accept() -> None:
            peers.append((await server.accept())[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            with trio.CancelScope() as scope:
                async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=server.connect):
                    peers[0].stream.stall()
                    scope.cancel()
                    await trio.sleep_forever()
            assert scope.cancelled_caught
        assert trio.current_time() == 0
        assert (await peers[0].wait_ended()).code == 1006


async def test_close_handshake_is_bounded_by_3_s(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent() as (peer, _, _):
        peer.go_silent()
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(3)


async def test_block_can_be_left_during_the_wait_before_a_retry(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent() as (peer, _, server):
        server.failing = [OSError("unreachable")] * 100
        peer.reset()
        await trio.sleep(40)
        ended = trio.current_time()
    assert trio.current_time() == ended


async def test_block_can_be_left_during_a_registration(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent() as (peer, _, server):
        peer.reset()
        again = await server.next_peer()
        await again.receive()
        ended = trio.current_time()
    assert trio.current_time() == ended
    assert (await again.wait_ended()).code == 1006


async def test_loss_in_the_step_in_which_the_block_ends_causes_no_reconnect(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_commanded_agent() as (_, agent, server):
        connection = agent._connection
        assert connection is not None
        connection._link.lose("in this very step")
        assert not agent.registered
    assert len(server.tries) == 1
    assert trio.current_time() == 0
