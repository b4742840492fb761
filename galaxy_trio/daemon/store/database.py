"""What the store requires of a database, whatever its dialect: a way to open and to check it, and its errors as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
from sqlalchemy import Engine

from galaxy_trio.errors import GalaxyError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.exc import SQLAlchemyError


class StoreError(GalaxyError):
    """The database could not be read or written; the message gives the reason and what to do. Accepted tasks stay on disk."""


class DatabaseInUse(StoreError):
    """Another daemon uses the database."""


@attrs.frozen
class Engines:
    """An open database.

    Attributes:
        writing: For transactions that write, one at a time.
        reading: For transactions that only read. They run concurrently, and each sees one state of the database.
    """

    writing: Engine
    reading: Engine


class Database(Protocol):
    """A database of one dialect. ``str`` names it in errors, without its password."""

    def open(self) -> AbstractAsyncContextManager[Engines]:
        """Open the database inside the block, and create its tables if it is empty. No other daemon can open it at the same time.

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

    def explain(self, error: SQLAlchemyError) -> StoreError:
        """An error of the database, as a sentence for the daemon's operator."""
        ...

    def is_temporary(self, error: Exception) -> bool:
        """Whether a transaction that failed with this error may succeed if it is repeated a moment later."""
        ...
