"""A simulated daemon: one run of it, from its start to its end or its death."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import trio

from galaxy_trio._concurrency.background import split_cancelled
from galaxy_trio.constellation.config import ConstellationConfig
from galaxy_trio.daemon.configuration import Configuration
from galaxy_trio.daemon.life import Life
from galaxy_trio.daemon.settings import Settings
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.location import PostgresqlLocation
from galaxy_trio.daemon.web.current_app import CurrentApp
from tests.simulation.cluster.database import DatabaseLink, current

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import Message

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.testing import NetworkLink
    from tests.simulation.cluster.world import ClusterWorld

_DRAIN: Final = 30.0
"""Seconds, in which every task ends."""
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Unanswered(Exception):
    """A request got no answer."""


@attrs.frozen
class Answer:
    """A daemon's answer."""

    status: int
    body: dict[str, Any]


class Process:
    """One run of a daemon.

    Attributes:
        name: The daemon's name.
        database: Its link to the database.
        stop: Set to stop it as its service manager does.
        gone: Set when it has ended or was killed.
    """

    def __init__(self, name: str, world: ClusterWorld, database: DatabaseLink) -> None:
        self.name = name
        self.database = database
        self.stop = trio.Event()
        self.gone = trio.Event()
        self._world = world
        self._scope = trio.CancelScope()
        self._app = CurrentApp("the daemon is starting")
        self._life: Life | None = None
        self._requests: set[trio.CancelScope] = set()
        # Its connections, by device.
        self.links: dict[str, list[NetworkLink]] = {}
        self._cut = 0

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self.database.dead

    async def run(self) -> None:
        """Run it until it is stopped or killed."""
        current.set(self.database)
        plan = self._world.plan
        location = PostgresqlLocation("simulated", lease=plan.lease)
        settings = Settings(Path(), Path(), "", location, name=self.name, drain=_DRAIN)
        configuration = Configuration(settings, ConstellationConfig(tuple(self._world.fleet.configs)), ())
        try:
            with self._scope:
                self._life = Life(configuration, self._app, self._connect)
                await self._life.run(self.stop, lambda: None)
        except Exception as error:
            _, problem = split_cancelled(error)
            if not (self.dead or isinstance(problem, StoreError)):
                raise
        finally:
            self.gone.set()

    async def _connect(self, config: DeviceConfig) -> trio.abc.Stream:
        if self._is_cut:
            await trio.sleep(1)
            raise OSError("the network is unreachable")
        stream = await self._world.connect(self, config)
        link = self._world.fleet.network.links[-1]
        self.links.setdefault(config.device_id, []).append(link)
        if self._cut:
            link.partition()
        return stream

    @property
    def _is_cut(self) -> bool:
        return self._cut > 0

    def open_links(self, device: str) -> list[NetworkLink]:
        """Its open connections for a device."""
        return [link for link in self.links.get(device, ()) if not link.client.closed]

    def kill(self) -> None:
        """Kill it: nothing that it does from now on has an effect."""
        self.database.dead = True
        for link in self._all_links():
            link.reset()
        for scope in tuple(self._requests):
            scope.cancel()
        self._scope.cancel()
        self.gone.set()

    async def cut_off(self, seconds: float, *, holds: bool) -> None:
        """Cut it off from its database and its devices for a time. Its statements fail, or else wait and come late."""
        name = "held" if holds else "away"
        self._cut += 1
        setattr(self.database, name, getattr(self.database, name) + 1)
        cut = self._all_links()
        for link in cut:
            link.partition()
        await trio.sleep(seconds)
        self._cut -= 1
        setattr(self.database, name, getattr(self.database, name) - 1)
        self.database.resume()
        for link in self._all_links():
            link.heal()

    def left(self) -> str:
        """What it still has in memory; empty if that is nothing."""
        current_life = None if self._life is None else self._life._current
        if current_life is None:
            return f"{self.name} has no life"
        _, task_queue, _ = current_life
        counts = task_queue.queued, task_queue.running, task_queue.in_memory
        return "" if counts == (0, 0, 0) else f"{self.name} has {counts} queued, running, in memory"

    def _all_links(self) -> list[NetworkLink]:
        return [link for links in self.links.values() for link in links if not link.client.closed]

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        seconds: float = 15,
    ) -> Answer:
        """Send a request, and return the answer.

        Raises:
            Unanswered: There is none within the time.
        """
        status = 0
        text = bytearray()

        def take(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            text.extend(message.get("body", b""))

        with trio.move_on_after(seconds):
            await self._request(method, path, headers, b"" if body is None else json.dumps(body).encode(), take)
            return Answer(status, cast("dict[str, Any]", json.loads(bytes(text))))
        raise Unanswered

    async def follow(self, last_id: int, on_event: Callable[[int, str, dict[str, Any]], None]) -> None:
        """Follow the events after an id until the stream ends.

        Raises:
            Unanswered: There is no stream.
        """

        def take(message: Message) -> None:
            if message.get("status", 200) != 200:
                raise Unanswered
            lines = dict(line.split(": ", 1) for line in message.get("body", b"").decode().splitlines() if ": " in line)
            if "event" in lines:
                on_event(int(lines.get("id", "-1")), lines["event"], json.loads(lines["data"]))

        await self._request("GET", "/events", {"last-event-id": str(last_id)}, b"", take)

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, take: Callable[[Message], None]
    ) -> None:
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [
                (b"host", b"daemon"),
                *((name.lower().encode(), value.encode()) for name, value in headers.items()),
            ],
        }
        pieces: list[Message] = [{"type": "http.request", "body": body}]

        async def receive() -> Message:
            if not pieces:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            return pieces.pop()

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            take(message)

        token = current.set(self.database)
        try:
            with trio.CancelScope() as waiting:
                self._requests.add(waiting)
                try:
                    if not self.gone.is_set():
                        await self._app(scope, receive, send)
                        if not self.dead:
                            return
                finally:
                    self._requests.discard(waiting)
            raise Unanswered
        finally:
            current.reset(token)
