"""Damaged recordings never stop a device or make it answer a batch twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio
from hypothesis import strategies as st

from galaxy_trio import ConnectionOptions
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.agent import open_agent
from galaxy_trio.messages import ClientMessageType, ServerMessageType
from galaxy_trio.testing import PEER_URL
from tests.agent.support.agent_server import INFO, AgentServer, results_of
from tests.support.fuzzing import FOR_DEVICE, damaged, decoded, errors_logged, fuzz, simulate

if TYPE_CHECKING:
    from galaxy_trio.testing import ScriptedPeer

_to_device = st.lists(
    st.one_of(damaged(FOR_DEVICE), damaged(FOR_DEVICE), st.sampled_from(FOR_DEVICE), st.sampled_from([0.5, 40.0])),
    max_size=12,
)


async def tool_0(i: int = 0) -> int:
    """Return its argument, as the recorded tool does."""
    await trio.lowlevel.checkpoint()
    return i


async def tool_1(i: object = None) -> object:
    """Return after a while."""
    await trio.sleep(1)
    return i


async def _command(script: list[str | float]) -> None:
    async with open_background() as nursery:
        server = AgentServer(nursery)
        peers: list[ScriptedPeer] = []

        async def accept() -> None:
            peers.append((await server.accept())[0])

        nursery.start_soon(accept)
        async with open_agent(
            PEER_URL,
            "device_001",
            [tool_0, tool_1],
            system_info=INFO,
            connect=server.connect,
            options=ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=math.inf),
        ) as agent:
            [peer] = peers
            texts = [step for step in script if isinstance(step, str)]
            for step in script:
                if isinstance(step, str):
                    peer.send_text(step)
                else:
                    await trio.sleep(step)
            # Enough time for every command.
            await trio.sleep(1_000)
            assert agent.registered
            commands = [one for one in decoded(texts) if one.type is ServerMessageType.COMMAND]
            answers = [one for one in peer.received_nowait() if one.type == ClientMessageType.COMMAND_RESULTS]
            asked = [(one.session_id, one.response_id) for one in commands]
            refusals = [answer for answer in answers if answer.error is not None]
            for answer in answers:
                if answer.error is None:
                    asked.remove((answer.session_id, answer.prev_response_id))
            assert all(answer.prev_response_id and answer.action_results == [] for answer in refusals)
            assert len(refusals) <= len(texts) - len(commands)
            statistics = agent.statistics()
            assert (statistics.batches, statistics.queued_batches) == (len(commands), 0)
            assert (statistics.registrations, statistics.threads_running) == (1, 0)
            [result] = await results_of(peer, {"tool_name": "tool_0", "parameters": {"i": 5}})
            assert (result.status, result.result) == ("success", 5)


@fuzz(25, script=_to_device)
def test_a_device_stays_and_answers_each_batch_at_most_once_whatever_a_server_sends(script: list[str | float]) -> None:
    with errors_logged() as errors:
        simulate(_command, script)
    assert errors == []
