"""One database in memory that several simulated daemons share, and what can go wrong between a daemon and it.

Its statements run in the event loop, on the same virtual clock as everything else. What a daemon does in a thread waits for the latency,
and for the faults, before and after that.
"""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeVar, TypeVarTuple
from unittest import mock

import trio
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import OperationalError

from galaxy_trio.daemon.store.database import DatabaseAway, Engines, StoreError
from galaxy_trio.daemon.store.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from random import Random

    from sqlalchemy.exc import SQLAlchemyError

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

_POLL_INTERVAL: Final = 2.0
"""Seconds between two looks for events without a notification, as with PostgreSQL."""
_numbers: Final = itertools.count()
current: Final[ContextVar[DatabaseLink | None]] = ContextVar("current", default=None)
"""The link of the daemon for which a task works."""


class _Failure(OperationalError):
    """What a fault makes of a statement."""

    def __init__(self) -> None:
        super().__init__("a statement", None, sqlite3.OperationalError("the connection was lost"))


class SharedDatabase:
    """A database in memory. Use it as a context manager."""

    def __init__(self) -> None:
        self.url: Final = f"file:cluster-{next(_numbers)}?mode=memory&cache=shared"
        self._keeper = sqlite3.connect(self.url, uri=True)
        self.links: set[DatabaseLink] = set()
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each transaction of a daemon that may have changed something."""

    def __enter__(self) -> Self:
        engine = create_engine("sqlite://", creator=self.connect)
        METADATA.create_all(engine)
        engine.dispose()
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.close()

    def connect(self) -> sqlite3.Connection:
        """Open a connection, which only the caller may use."""
        connection = sqlite3.connect(self.url, uri=True)
        # SQLAlchemy begins the transactions.
        connection.isolation_level = None
        return connection

    def notify(self) -> None:
        """Notify all daemons that events were committed."""
        for link in tuple(self.links):
            link.notify()


class DatabaseLink:
    """The database as one daemon sees it: a `Database`.

    Attributes:
        dead: Whether the daemon was killed: nothing that it begins has an effect. What is on its way arrives.
        away: The number of outages: while there is one, statements fail.
        held: The number of pauses: while there is one, statements wait.
        unrenewed: The number of pauses of the renewals alone: while there is one, they fail.
        slow: The maximum seconds for which a commit is on its way.
        not_done: How many of the next group commits fail before they take place.
        unanswered: How many of the next group commits fail after they took place.
        function: The function that the daemon runs in a thread at the moment.
    """

    def __init__(self, shared: SharedDatabase, random: Random, lease: float, latency: float) -> None:
        self.is_shared: Final = True
        self.lease: Final = lease
        self.dead = False
        self.away = 0
        self.held = 0
        self.unrenewed = 0
        self.slow = 0.0
        self.not_done = 0
        self.unanswered = 0
        self.function = ""
        self.shared: Final = shared
        self._random = random
        self._latency = latency
        self._changed = trio.lowlevel.ParkingLot()
        self._on_commits: list[Callable[[], None]] = []

    def __str__(self) -> str:
        return "the simulated database"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Engines]:
        """See `Database.open`."""
        await trio.lowlevel.checkpoint()
        engine = create_engine("sqlite://", creator=self.shared.connect)
        event.listen(engine, "begin", self._on_begin)
        event.listen(engine, "commit", self._on_commit)
        self.shared.links.add(self)
        try:
            yield Engines(engine, engine, engine)
        finally:
            self.shared.links.discard(self)
            engine.dispose()

    def check(self) -> None:
        """See `Database.check`."""

    def order_events(self, connection: Connection) -> None:
        """See `Database.order_events`."""

    def report_events(self) -> None:
        """See `Database.report_events`."""

    async def follow_events(self, on_commit: Callable[[], None]) -> NoReturn:
        """See `Database.follow_events`."""
        self._on_commits.append(on_commit)
        try:
            while True:
                await trio.sleep(_POLL_INTERVAL)
                on_commit()
        finally:
            self._on_commits.remove(on_commit)

    def notify(self) -> None:
        """Call those who follow events, unless the notification is lost."""
        if not (self.away or self.held or self.dead):
            for on_commit in self._on_commits:
                on_commit()

    def explain(self, error: SQLAlchemyError) -> StoreError:
        """See `Database.explain`."""
        return (
            DatabaseAway(f"{self} failed: {error}")
            if isinstance(error, _Failure)
            else StoreError(f"it failed: {error}")
        )

    def is_temporary(self, error: Exception) -> bool:
        """See `Database.is_temporary`."""
        return isinstance(error, _Failure)

    def resume(self) -> None:
        """Let the statements go on that waited; call it after `held` was changed."""
        self._changed.unpark_all()

    async def before(self, function: str) -> None:
        """What comes before a function that a daemon runs in a thread."""
        if self.dead:
            raise _Failure
        delay = self._random.uniform(0, self._latency)
        if function == "commit":
            delay += self._random.uniform(0, self.slow)
        await trio.sleep(delay)
        if function == "renew" and self.unrenewed:
            raise _Failure
        while self.held:
            await self._changed.park()

    async def after(self) -> None:
        """What comes after it."""
        await trio.sleep(self._random.uniform(0, self._latency))

    def _on_begin(self, connection: Connection) -> None:
        if self.away:
            raise _Failure
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _on_commit(self, connection: Connection) -> None:
        if self.function != "commit":
            return
        if self.not_done:
            self.not_done -= 1
            raise _Failure
        if self.unanswered:
            self.unanswered -= 1
            connection.exec_driver_sql("COMMIT")
            self.shared.notify()
            raise _Failure
        self.shared.notify()


@contextmanager
def threads_in_the_event_loop() -> Generator[None]:
    """Run what daemons do in threads in the event loop, within the block."""

    async def run_sync(
        function: Callable[[*Ts], T],
        *arguments: *Ts,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        del thread_name
        link = current.get()
        await trio.lowlevel.checkpoint_if_cancelled()
        if link is None:
            return function(*arguments)
        # A partial function has no name, and none of those counts.
        name = getattr(function, "__name__", "")
        async with limiter or trio.CapacityLimiter(1):
            shielded = not abandon_on_cancel
            with trio.CancelScope(shield=shielded):
                await link.before(name)
            link.function = name
            try:
                return function(*arguments)
            finally:
                if name == "commit":
                    link.shared.on_commit()
                with trio.CancelScope(shield=shielded):
                    await link.after()

    with mock.patch.object(trio.to_thread, "run_sync", run_sync):
        yield
