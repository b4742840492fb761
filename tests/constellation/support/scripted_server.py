"""A server in memory that meets each try to connect as a test says, and remembers when it came."""

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


class Highest(Random):
    """Always the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


class Meet(Enum):
    """How a try to connect is met, when it is neither an exception, an HTTP status, nor words that refuse the registration."""

    WELCOME = "let in"
    NO_HANDSHAKE = "nobody answers the handshake"
    NO_CONFIRMATION = "nobody confirms the registration"
    HANG_UP = "ended in the handshake"
    GARBAGE = "answered with what is no HTTP"
    BROKEN_CONFIRMATION = "the registration is answered with what is no message"
    LOST_AT_ONCE = "let in, and reset"


NOTHING = "nothing is known of it"


@attrs.frozen
class Try:
    """A try to connect.

    Attributes:
        at: When, on trio's clock.
        peer: The server's end, if one came about.
    """

    at: float
    device_id: str
    peer: ScriptedPeer | None


@attrs.define
class ScriptedServer:
    """For `open_constellation`'s ``connect``.

    Attributes:
        script: How the next tries are met, one after the other; of all devices, or of each by its own name in `scripts`.
        then: How those after it are met.
        info: What is known of the devices, beside their name: JSON, words that refuse, or None to say nothing; one for each connection,
            the last for all after it.
        tries: So far, in order.
        clients: The names that registered, in order.
        tasks: The requests that came, in order.
    """

    nursery: trio.Nursery
    script: list[Exception | int | str | Meet] = attrs.field(factory=list[Exception | int | str | Meet])
    then: Exception | int | str | Meet = Meet.WELCOME
    scripts: dict[str, list[Exception | int | str | Meet]] = attrs.field(
        factory=dict[str, list[Exception | int | str | Meet]]
    )
    info: list[JSON] = attrs.field(factory=lambda: list[JSON]([{"platform": "linux"}]))
    tries: list[Try] = attrs.field(factory=list[Try])
    clients: list[str] = attrs.field(factory=list[str])
    tasks: list[ClientMessage] = attrs.field(factory=list[ClientMessage])
    refuse_heartbeats: bool = False

    async def connect(self, config: DeviceConfig) -> trio.abc.Stream:
        """Meet a try."""
        await trio.lowlevel.checkpoint()
        script = self.scripts.get(config.device_id, self.script)
        meet = script.pop(0) if script else self.then
        if isinstance(meet, Exception):
            self.tries.append(Try(trio.current_time(), config.device_id, None))
            raise meet
        if meet is Meet.NO_HANDSHAKE:
            self.tries.append(Try(trio.current_time(), config.device_id, None))
            return trio.testing.memory_stream_pair()[0]
        peer = ScriptedPeer()
        self.tries.append(Try(trio.current_time(), config.device_id, peer))
        if meet is Meet.HANG_UP:
            await peer.abort()
        elif meet is Meet.GARBAGE:
            await peer.send_raw(b"220 mail.test ESMTP\r\n")
        else:
            peer.reject_with = meet if isinstance(meet, int) else None
            self.nursery.start_soon(peer.run)
            self.nursery.start_soon(self._converse, peer, meet)
        return peer.stream

    async def _converse(self, peer: ScriptedPeer, meet: int | str | Meet) -> None:
        try:
            while True:
                try:
                    message = await peer.receive()
                except trio.TooSlowError:
                    continue
                await self._answer(peer, meet, message)
        except TransportEnded:
            pass

    async def _answer(self, peer: ScriptedPeer, meet: int | str | Meet, message: ClientMessage) -> None:
        match message.type:
            case ClientMessageType.REGISTER:
                self.clients.append(message.client_id or "")
                await self._answer_registration(peer, meet)
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

    async def _answer_registration(self, peer: ScriptedPeer, meet: int | str | Meet) -> None:
        if isinstance(meet, str):
            peer.refuse(meet)
            await peer.close()
        elif meet is Meet.BROKEN_CONFIRMATION:
            peer.send_text("no message at all")
        elif meet is not Meet.NO_CONFIRMATION:
            peer.confirm()
            if meet is Meet.LOST_AT_ONCE:
                await trio.testing.wait_all_tasks_blocked()
                peer.reset()

    @property
    def peer(self) -> ScriptedPeer:
        """The end of the newest connection."""
        return next(each.peer for each in reversed(self.tries) if each.peer is not None)

    def waits(self, device_id: str | None = None) -> list[float]:
        """Seconds between the tries, of one device or of all."""
        times = [each.at for each in self.tries if device_id in (None, each.device_id)]
        return [round(later - earlier, 6) for earlier, later in pairwise(times)]


@asynccontextmanager
async def open_scripted_server() -> AsyncGenerator[ScriptedServer]:
    """A server that lets everybody in, unless its script says something else."""
    with trio.fail_after(SECONDS * 1000):
        async with open_background() as nursery:
            yield ScriptedServer(nursery)
