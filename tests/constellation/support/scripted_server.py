"""A server in memory that handles each attempt to connect as a script says, and records its time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from enum import Enum
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import attrs
import trio
import trio.testing

from galaxy_trio._concurrency.background import open_background
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.messages import JSON, ClientMessage, ClientMessageType, ServerMessageType
from galaxy_trio.testing import ScriptedPeer
from tests.constellation.support.fleet import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.constellation.config import DeviceConfig


class LongestWaits(Random):
    """Draw the longest wait each time."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


class Reaction(Enum):
    """The handling of an attempt, besides an exception, an HTTP status, or the text of a refused registration."""

    ACCEPT = "accepted"
    NO_HANDSHAKE = "the handshake is not answered"
    NO_CONFIRMATION = "the registration is not confirmed"
    HANG_UP = "the connection ends in the handshake"
    GARBAGE = "the handshake is answered with something that is not HTTP"
    BROKEN_CONFIRMATION = "the registration is answered with an invalid message"
    RESET_AFTER_REGISTRATION = "accepted, then reset"


NOTHING = "no information"


@attrs.frozen
class Attempt:
    """An attempt to connect.

    Attributes:
        at: The time, on trio's clock.
        peer: The server's end, if there is one.
    """

    at: float
    device_id: str
    peer: ScriptedPeer | None


@attrs.define
class ScriptedServer:
    """Provides ``connect`` for `open_constellation`.

    Attributes:
        script: The handling of the next attempts in order, for all devices; `scripts` has those of single devices.
        then: The handling of the attempts after the script.
        info: The information about the devices, without their ids: JSON, the text of a refusal, or None for no reply; one for each
            connection, the last one for all further connections.
        attempts: The attempts so far, in order.
        clients: The client ids that registered, in order.
        tasks: The task messages, in order.
    """

    nursery: trio.Nursery
    script: list[Exception | int | str | Reaction] = attrs.field(factory=list[Exception | int | str | Reaction])
    then: Exception | int | str | Reaction = Reaction.ACCEPT
    scripts: dict[str, list[Exception | int | str | Reaction]] = attrs.field(
        factory=dict[str, list[Exception | int | str | Reaction]]
    )
    info: list[JSON] = attrs.field(factory=lambda: list[JSON]([{"platform": "linux"}]))
    attempts: list[Attempt] = attrs.field(factory=list[Attempt])
    clients: list[str] = attrs.field(factory=list[str])
    tasks: list[ClientMessage] = attrs.field(factory=list[ClientMessage])
    refuse_heartbeats: bool = False

    async def connect(self, config: DeviceConfig) -> trio.abc.Stream:
        """Handle an attempt."""
        await trio.lowlevel.checkpoint()
        script = self.scripts.get(config.device_id, self.script)
        reaction = script.pop(0) if script else self.then
        if isinstance(reaction, Exception):
            self.attempts.append(Attempt(trio.current_time(), config.device_id, None))
            raise reaction
        if reaction is Reaction.NO_HANDSHAKE:
            self.attempts.append(Attempt(trio.current_time(), config.device_id, None))
            return trio.testing.memory_stream_pair()[0]
        peer = ScriptedPeer()
        self.attempts.append(Attempt(trio.current_time(), config.device_id, peer))
        if reaction is Reaction.HANG_UP:
            await peer.abort()
        elif reaction is Reaction.GARBAGE:
            await peer.send_raw(b"220 mail.test ESMTP\r\n")
        else:
            peer.reject_with = reaction if isinstance(reaction, int) else None
            self.nursery.start_soon(peer.run)
            self.nursery.start_soon(self._converse, peer, reaction)
        return peer.stream

    async def _converse(self, peer: ScriptedPeer, reaction: int | str | Reaction) -> None:
        try:
            while True:
                try:
                    message = await peer.receive()
                except trio.TooSlowError:
                    continue
                await self._answer(peer, reaction, message)
        except TransportEnded:
            pass

    async def _answer(self, peer: ScriptedPeer, reaction: int | str | Reaction, message: ClientMessage) -> None:
        match message.type:
            case ClientMessageType.REGISTER:
                self.clients.append(message.client_id or "")
                await self._answer_registration(peer, reaction)
            case ClientMessageType.DEVICE_INFO_REQUEST:
                info = self.info.pop(0) if len(self.info) > 1 else self.info[0]
                if info is not None:
                    known: JSON = {"error": info} if isinstance(info, str) else info
                    if isinstance(info, dict) and info:
                        known = {"device_id": message.target_id, **info}
                    peer.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id=message.request_id, result=known)
            case ClientMessageType.TASK:
                self.tasks.append(message)
            case ClientMessageType.HEARTBEAT if self.refuse_heartbeats:
                peer.refuse("not now")
            case _:
                peer.answer(message)

    async def _answer_registration(self, peer: ScriptedPeer, reaction: int | str | Reaction) -> None:
        if isinstance(reaction, str):
            peer.refuse(reaction)
            await peer.close()
        elif reaction is Reaction.BROKEN_CONFIRMATION:
            peer.send_text("not a message")
        elif reaction is not Reaction.NO_CONFIRMATION:
            peer.confirm()
            if reaction is Reaction.RESET_AFTER_REGISTRATION:
                await trio.testing.wait_all_tasks_blocked()
                peer.reset()

    @property
    def peer(self) -> ScriptedPeer:
        """The server's end of the newest connection."""
        return next(each.peer for each in reversed(self.attempts) if each.peer is not None)

    def waits(self, device_id: str | None = None) -> list[float]:
        """Return the seconds between attempts, of one device or of all."""
        times = [each.at for each in self.attempts if device_id in (None, each.device_id)]
        return [round(later - earlier, 6) for earlier, later in pairwise(times)]


@asynccontextmanager
async def open_scripted_server() -> AsyncGenerator[ScriptedServer]:
    """Open a server that accepts all attempts, unless its script says otherwise."""
    with trio.fail_after(SECONDS * 1000):
        async with open_background() as nursery:
            yield ScriptedServer(nursery)
