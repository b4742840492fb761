"""The tables of the daemon's database."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, text

VERSION: Final = 2
"""The schema's version. A change of a table or an index needs a new one, and a module of migrations for existing databases."""

METADATA = MetaData()

TASKS = Table(
    "tasks",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("asked_device", Text),
    Column("os", Text),
    Column("capabilities", Text, nullable=False),
    Column("timeout", Float, nullable=False),
    Column("idempotency_key", Text, unique=True),
    Column("device", Text),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("error", Text),
    Column("result_size", Integer),
    Column("retry_of", Text),
    Column("attempt", Text),
    Index("tasks_by_state", "state", "number"),
    Index("tasks_by_device", "device", "number"),
    sqlite_autoincrement=True,
)
"""A number is never used again, so that a list's pages stay consistent when tasks are deleted between them. `attempt` is the token of the
latest attempt to run the task."""

IS_QUEUED: Final = TASKS.c.state == text("'queued'")
"""The value is a literal: with a bound parameter, SQLite would not use the partial index below."""

TASKS_QUEUED: Final = Index(
    "tasks_queued",
    TASKS.c.asked_device,
    TASKS.c.os,
    TASKS.c.capabilities,
    TASKS.c.number,
    sqlite_where=IS_QUEUED,
    postgresql_where=IS_QUEUED,
)
"""The queued tasks by requirement, in order: finding one reads no others."""

DEPARTURES = Table(
    "departures",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("task", Integer, ForeignKey("tasks.number", ondelete="CASCADE"), nullable=False, index=True),
    Column("device", Text, nullable=False),
    Column("chosen", Float, nullable=False),
    Column("left", Float, nullable=False),
)
"""The devices that were chosen for a task and had left before it ran."""

RESULTS = Table(
    "results",
    METADATA,
    Column("task", Integer, ForeignKey("tasks.number", ondelete="CASCADE"), primary_key=True),
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
