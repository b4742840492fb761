"""The server's side of an agent, scripted: one peer for each of its tries."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from galaxy_trio import DeviceInfo, Platform
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.agent import open_agent
from galaxy_trio.testing import PEER_URL, ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from galaxy_trio.agent import Agent, Tool
    from galaxy_trio.messages import ClientMessage, CommandResult

DEVICE = "device_001"
INFO = DeviceInfo(DEVICE, Platform.LINUX)


class Longest(Random):
    """Waits without jitter: the whole ceiling."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


class AgentServer:
    """What an agent connects to.

    Attributes:
        failing: Raised by the next tries, one after the other.
        tries: When each try was made.
        reject_with: An HTTP status to reject the handshakes with, for as long as it is set.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._peers_in, self._peers = trio.open_memory_channel[ScriptedPeer](100)
        self.failing: list[BaseException] = []
        self.tries: list[float] = []
        self.reject_with: int | None = None

    async def connect(self) -> trio.abc.Stream:
        """For `open_agent`."""
        await trio.lowlevel.checkpoint()
        self.tries.append(trio.current_time())
        if self.failing:
            raise self.failing.pop(0)
        peer = ScriptedPeer()
        peer.reject_with = self.reject_with
        self._nursery.start_soon(peer.run)
        self._peers_in.send_nowait(peer)
        return peer.stream

    async def next_peer(self) -> ScriptedPeer:
        """The peer of the next try."""
        with trio.fail_after(1000):
            return await self._peers.receive()

    async def accept(self) -> tuple[ScriptedPeer, ClientMessage]:
        """Confirm the next try's registration."""
        peer = await self.next_peer()
        registration = await peer.receive()
        peer.confirm()
        return peer, registration

    async def refuse(self, why: str) -> None:
        """Refuse the next try's registration, as a server does."""
        peer = await self.next_peer()
        await peer.receive()
        peer.refuse(why)
        await peer.close(1000)


@asynccontextmanager
async def open_agent_server() -> AsyncGenerator[AgentServer]:
    async with open_background() as nursery:
        yield AgentServer(nursery)


_numbers = itertools.count(1)


def send_batch(peer: ScriptedPeer, *commands: dict[str, object], session_id: str | None = "s1", **more: object) -> str:
    """Send a batch; its response_id."""
    response_id = f"batch-{next(_numbers)}"
    actions = [{"tool_type": "action", "call_id": f"c{number}", **command} for number, command in enumerate(commands)]
    peer.send_json(
        {
            "type": "command",
            "status": "continue",
            "session_id": session_id,
            "response_id": response_id,
            "actions": actions,
            **more,
        }
    )
    return response_id


def call(tool_name: str, **parameters: object) -> dict[str, object]:
    return {"tool_name": tool_name, "parameters": parameters}


async def receive_results(peer: ScriptedPeer, response_id: str | None = None) -> list[CommandResult]:
    """The next results, heartbeats aside; those of this batch if it is named."""
    while (message := await peer.receive()).type != "command_results":
        assert message.type == "heartbeat"
        peer.confirm()
    if response_id is not None:
        assert message.prev_response_id == response_id
    assert message.action_results is not None
    return message.action_results


async def results_of(peer: ScriptedPeer, *commands: dict[str, object], **more: object) -> list[CommandResult]:
    """Send a batch, and receive its results."""
    return await receive_results(peer, send_batch(peer, *commands, **more))  # type: ignore[arg-type]


@asynccontextmanager
async def open_commanded_agent(
    tools: Iterable[Tool | Callable[..., Any]] = (), **more: Any
) -> AsyncGenerator[tuple[ScriptedPeer, Agent, AgentServer]]:
    """An agent, and the scripted server that has confirmed it."""
    async with open_agent_server() as server:
        accepted: list[ScriptedPeer] = []

        async def accept() -> None:
            accepted.append((await server.accept())[0])

        async with open_background() as nursery:
            nursery.start_soon(accept)
            arguments: dict[str, Any] = {"system_info": INFO, "connect": server.connect, "random": Longest(), **more}
            async with open_agent(PEER_URL, DEVICE, tools, **arguments) as agent:
                yield accepted[0], agent, server
