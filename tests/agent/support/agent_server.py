"""A scripted server for an agent: one peer for each try to connect."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from galaxy_trio import DeviceInfo, Platform
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.agent import open_agent
from galaxy_trio.testing import PEER_URL, MemoryServer, ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from galaxy_trio.agent import Agent, Tool
    from galaxy_trio.messages import ClientMessage, CommandResult

DEVICE = "device_001"
INFO = DeviceInfo(DEVICE, Platform.LINUX)
ALREADY_REGISTERED = f"client_id {DEVICE!r} is already registered; duplicate registrations are not allowed"


class Longest(Random):
    """Returns the maximum, so that waits have no jitter."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


class AgentServer:
    """A scripted server that an agent connects to.

    Attributes:
        failing: Exceptions for the next tries, in order.
        tries: The time of each try.
        reject_with: The HTTP status to reject handshakes with; None to accept them.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._peers_in, self._peers = trio.open_memory_channel[ScriptedPeer](100)
        self.failing: list[BaseException] = []
        self.tries: list[float] = []
        self.reject_with: int | None = None

    async def connect(self) -> trio.abc.Stream:
        """The ``connect`` of `open_agent`."""
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
        """Wait for the next try and return its peer."""
        with trio.fail_after(1000):
            return await self._peers.receive()

    async def accept(self) -> tuple[ScriptedPeer, ClientMessage]:
        """Wait for the next try and confirm its registration."""
        peer = await self.next_peer()
        registration = await peer.receive()
        peer.confirm()
        return peer, registration

    async def refuse(self, why: str) -> None:
        """Wait for the next try and refuse its registration like a server."""
        peer = await self.next_peer()
        await peer.receive()
        peer.refuse(why)
        await peer.close(1000)


@asynccontextmanager
async def open_agent_server() -> AsyncGenerator[AgentServer]:
    async with open_background() as nursery:
        yield AgentServer(nursery)


def connect_to(server: MemoryServer) -> Callable[[], Awaitable[trio.abc.Stream]]:
    """A ``connect`` of `open_agent` for a server in memory."""

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return server.connect()

    return connect


_numbers = itertools.count(1)


def send_batch(peer: ScriptedPeer, *commands: dict[str, object], session_id: str | None = "s1", **more: object) -> str:
    """Send a batch and return its response_id."""
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
    """Receive the next results, confirming heartbeats. Checks their response_id if given."""
    while (message := await peer.receive()).type != "command_results":
        assert message.type == "heartbeat"
        peer.confirm()
    if response_id is not None:
        assert message.prev_response_id == response_id
    assert message.action_results is not None
    return message.action_results


async def results_of(peer: ScriptedPeer, *commands: dict[str, object], **more: object) -> list[CommandResult]:
    """Send a batch and receive its results."""
    return await receive_results(peer, send_batch(peer, *commands, **more))  # type: ignore[arg-type]


@asynccontextmanager
async def open_commanded_agent(
    tools: Iterable[Tool | Callable[..., Any]] = (), **more: Any
) -> AsyncGenerator[tuple[ScriptedPeer, Agent, AgentServer]]:
    """Open a registered agent and its scripted server."""
    async with open_agent_server() as server:
        accepted: list[ScriptedPeer] = []

        async def accept() -> None:
            accepted.append((await server.accept())[0])

        async with open_background() as nursery:
            nursery.start_soon(accept)
            arguments: dict[str, Any] = {"system_info": INFO, "connect": server.connect, "random": Longest(), **more}
            async with open_agent(PEER_URL, DEVICE, tools, **arguments) as agent:
                yield accepted[0], agent, server
