"""What the store requires of a database, whatever its dialect: a way to open and to check it, and its errors as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import attrs
from sqlalchemy import Engine

from galaxy_trio.errors import GalaxyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection
    from sqlalchemy.exc import SQLAlchemyError


MAX_READERS: Final = 4
"""Transactions that only read, at a time."""


class StoreError(GalaxyError):
    """The database could not be read or written; the message gives the reason and what to do. Accepted tasks stay on disk."""


class DatabaseInUse(StoreError):
    """Another daemon uses the database, which only one can use at a time."""


class DatabaseAway(StoreError):
    """The server of the database cannot be reached at the moment."""


@attrs.frozen
class Engines:
    """An open database.

    Attributes:
        writing: For transactions that write, one at a time.
        reading: For transactions that only read. They run concurrently, and each sees one state of the database.
        renewing: For the renewals of the daemon's lease alone, which must not wait for other transactions.
    """

    writing: Engine
    reading: Engine
    renewing: Engine


class Database(Protocol):
    """A database of one dialect. ``str`` names it in errors, without its password."""

    @property
    def is_shared(self) -> bool:
        """Whether other daemons may write to it at the same time."""
        ...

    @property
    def lease(self) -> float:
        """The lease of each life of a daemon, in seconds; infinite if the database is not shared."""
        ...

    def open(self) -> AbstractAsyncContextManager[Engines]:
        """Open the database inside the block, and create its tables if it is empty. Unless it is shared, no other daemon can open it then.

        Raises:
            DatabaseInUse: Another daemon uses it.
            StoreError: It cannot be used.
        """
        ...

    def check(self) -> None:
        """Check whether a daemon could use the database. Creates and changes nothing.

        Raises:
            DatabaseInUse: A daemon uses it.
            StoreError: It cannot be used, or not be created.
        """
        ...

    def order_events(self, connection: Connection) -> None:
        """Let no other transaction that writes events get further than here until this one has ended. Called before it writes its events.

        So events are committed in the order of their ids. Other daemons are notified when this transaction is committed.
        """
        ...

    def report_events(self) -> None:
        """Called in the event loop when a transaction with events is committed by this process."""
        ...

    async def follow_events(self, on_commit: Callable[[], None]) -> NoReturn:
        """Call a function whenever there may be new events, of this process or, in a shared database, of any. Never returns.

        It may be called when there is none. It must not block or raise.
        """
        ...

    def explain(self, error: SQLAlchemyError) -> StoreError:
        """An error of the database, as a sentence for the daemon's operator."""
        ...

    def is_temporary(self, error: Exception) -> bool:
        """Whether a transaction that failed with this error may succeed if it is repeated a moment later."""
        ...
