"""The tables of the daemon's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from galaxy_trio.daemon.store.digest import digest

if TYPE_CHECKING:
    from sqlalchemy import Dialect

VERSION: Final = 2
"""The schema's version. A change of a table or an index needs a new one, and a module of migrations for existing databases."""


class _Utf8(TypeDecorator[str]):
    """Text as its bytes in UTF-8."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002  # as SQLAlchemy calls it
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # as SQLAlchemy calls it
        return None if value is None else value.decode()


_FREE_TEXT: Final = Text().with_variant(_Utf8(), "postgresql")
"""Any text from outside: PostgreSQL's own texts cannot contain a NUL."""
_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")
"""Only an `Integer` can be SQLite's own row number."""

METADATA = MetaData()

TASKS = Table(
    "tasks",
    METADATA,
    Column("number", _NUMBER, primary_key=True),
    Column("id", _FREE_TEXT, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("request", _FREE_TEXT, nullable=False),
    Column("asked_device", _FREE_TEXT),
    Column("os", _FREE_TEXT),
    Column("capabilities", _FREE_TEXT, nullable=False),
    Column("timeout", Float, nullable=False),
    Column("idempotency_key", _FREE_TEXT),
    Column("device", _FREE_TEXT),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("error", _FREE_TEXT),
    Column("result_size", Integer),
    Column("retry_of", _FREE_TEXT),
    Column("attempt", Text),
    Column("priority", SmallInteger, nullable=False, server_default=text("0")),
    Index("tasks_by_state", "state", "number"),
    UniqueConstraint("idempotency_key").ddl_if(dialect="sqlite"),
    sqlite_autoincrement=True,
)
"""A number is never used again, so that a list's pages stay consistent when tasks are deleted between them. `attempt` is the token of the
latest attempt to run the task."""

Index("tasks_by_key", digest(TASKS.c.idempotency_key), unique=True).ddl_if(dialect="postgresql")
Index("tasks_by_device", digest(TASKS.c.device), TASKS.c.number)

IS_QUEUED: Final = TASKS.c.state == text("'queued'")
"""The value is a literal: with a bound parameter, SQLite would not use the partial index below."""

TASKS_QUEUED: Final = Index(
    "tasks_queued",
    digest(TASKS.c.asked_device),
    digest(TASKS.c.os),
    digest(TASKS.c.capabilities),
    TASKS.c.priority.desc(),
    TASKS.c.number,
    sqlite_where=IS_QUEUED,
    postgresql_where=IS_QUEUED,
)
"""The queued tasks by requirement, in order: finding one reads no others."""

DEPARTURES = Table(
    "departures",
    METADATA,
    Column("number", _NUMBER, primary_key=True),
    Column("task", _NUMBER, ForeignKey("tasks.number", ondelete="CASCADE"), nullable=False, index=True),
    Column("device", _FREE_TEXT, nullable=False),
    Column("chosen", Float, nullable=False),
    Column("left", Float, nullable=False),
)
"""The devices that were chosen for a task and had left before it ran."""

RESULTS = Table(
    "results",
    METADATA,
    Column("task", _NUMBER, ForeignKey("tasks.number", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
"""Results in pieces, so that none has to be in memory as a whole."""

COMMITS = Table(
    "commits",
    METADATA,
    Column("writer", Text, primary_key=True),
    Column("token", Text, nullable=False),
)
"""The token of each writer's last transaction, by which it knows whether a commit without an answer took place."""
