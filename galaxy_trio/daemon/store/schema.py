"""The tables of the daemon's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    Column("claimed_by", Text),
    Column("graph", Text),
    Column("node", _FREE_TEXT),
    Index("tasks_by_state", "state", "number"),
    UniqueConstraint("idempotency_key").ddl_if(dialect="sqlite"),
    sqlite_autoincrement=True,
)
"""A number is never used again, so that a list's pages stay consistent when tasks are deleted between them. `attempt` is the token of the
latest attempt to run the task. `claimed_by` is the daemon that has the task in its memory, or runs it; none once it has ended. `graph` is
the id of the graph for whose `node` it runs."""

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

_IS_CLAIMED: Final = TASKS.c.claimed_by.is_not(None)
Index("tasks_claimed", TASKS.c.claimed_by, sqlite_where=_IS_CLAIMED, postgresql_where=_IS_CLAIMED)

_IS_OF_GRAPH: Final = TASKS.c.graph.is_not(None)
Index("tasks_by_graph", TASKS.c.graph, TASKS.c.number, sqlite_where=_IS_OF_GRAPH, postgresql_where=_IS_OF_GRAPH)

GRAPHS = Table(
    "graphs",
    METADATA,
    Column("number", _NUMBER, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", _FREE_TEXT),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("metadata", _FREE_TEXT, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("counts", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Column("cancelled", Float),
    Column("idempotency_key", _FREE_TEXT),
    Index("graphs_by_state", "state", "number"),
    UniqueConstraint("idempotency_key").ddl_if(dialect="sqlite"),
    sqlite_autoincrement=True,
)
"""`version` is the number of edits. `digest` is that of the graph as it was accepted, `size` the bytes of its texts and data, and `counts`
the number of its nodes by state, as JSON. What changes a graph locks its row first. `state` is ``deleted`` while its
tasks are being deleted."""

Index("graphs_by_key", digest(GRAPHS.c.idempotency_key), unique=True).ddl_if(dialect="postgresql")

GRAPH_NODES = Table(
    "graph_nodes",
    METADATA,
    Column("graph", _NUMBER, ForeignKey("graphs.number", ondelete="CASCADE"), primary_key=True),
    Column("id", _FREE_TEXT, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("spec", _FREE_TEXT, nullable=False),
    Column("state", Text, nullable=False),
    Column("undecided", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("task", _FREE_TEXT),
    Column("not_before", Float),
    Column("cancelled", Boolean, nullable=False),
    Column("ended", Float),
)
"""The nodes of graphs, in the order of their numbers. `task` is the id of the latest attempt's task.

A node that is ready has a task that is queued, runs, or has ended a moment ago; or it waits for `not_before`, to be tried again. So whether
a node runs is read from its task. `attempt` counts the attempts that have ended. `cancelled` is true while a running one is to be stopped.
"""

IS_READY: Final = GRAPH_NODES.c.state == text("'ready'")
"""As `IS_QUEUED`."""
Index("graph_nodes_ready", GRAPH_NODES.c.graph, sqlite_where=IS_READY, postgresql_where=IS_READY)
_IS_DELAYED: Final = GRAPH_NODES.c.not_before.is_not(None)
Index("graph_nodes_delayed", GRAPH_NODES.c.not_before, sqlite_where=_IS_DELAYED, postgresql_where=_IS_DELAYED)

GRAPH_EDGES = Table(
    "graph_edges",
    METADATA,
    Column("graph", _NUMBER, ForeignKey("graphs.number", ondelete="CASCADE"), primary_key=True),
    Column("id", _FREE_TEXT, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("source", _FREE_TEXT, nullable=False),
    Column("target", _FREE_TEXT, nullable=False),
    Column("when", Text, nullable=False),
    Column("condition", _FREE_TEXT),
    Column("metadata", _FREE_TEXT),
    Column("holds", Boolean),
    Index("graph_edges_by_source", "source", "graph", "number"),
    Index("graph_edges_by_target", "target", "graph", "number"),
)
"""The edges of graphs, in the order of their numbers. `holds` is NULL until it is decided."""

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
    Column("created", Float, nullable=False),
)
"""The token of each writer's last transaction, by which it knows whether a commit without an answer took place. A writer is the life of
a daemon."""

DAEMONS = Table(
    "daemons",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", _FREE_TEXT, nullable=False),
    Column("url", _FREE_TEXT),
    Column("started", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("died", Float),
    Column("draining", Float),
)
"""The lives of daemons, each with a lease until `expires`. A life is over when `died` is set, however its lease was.

A life that is `draining` gives its devices to the others.
"""

DEVICES = Table(
    "devices",
    METADATA,
    Column("name", _FREE_TEXT, primary_key=True),
    Column("config", _FREE_TEXT, nullable=False),
)
"""The devices of the cluster, as JSON without tokens."""

OWNERSHIP = Table(
    "ownership",
    METADATA,
    Column("device", _FREE_TEXT, primary_key=True),
    Column("owner", Text),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
)
"""The daemon that owns each device. The epoch changes with each owner, so that what an earlier one writes late is refused."""

DEVICE_STATES = Table(
    "device_states",
    METADATA,
    Column("device", _FREE_TEXT, primary_key=True),
    Column("state", _FREE_TEXT, nullable=False),
    Column("changed", Float, nullable=False),
)
"""The state of each device as JSON, as its owner last saw it. It is apart from the owner, which transactions lock."""

EVENTS = Table(
    "events",
    METADATA,
    Column("id", _NUMBER, primary_key=True),
    Column("writer", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", _FREE_TEXT, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)
"""The latest changes, as JSON, in the order of their commits."""
