"""Version 2: tokens of attempts and of transactions, priorities, and what several daemons share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(operations: Operations) -> None:
    """Upgrade from version 1, also from one of its early forms without `departures` or `tasks_queued`."""
    operations.add_column("tasks", Column("attempt", Text))
    operations.add_column("tasks", Column("priority", SmallInteger, nullable=False, server_default=text("0")))
    operations.add_column("tasks", Column("claimed_by", Text))
    operations.create_index("tasks_claimed", "tasks", ["claimed_by"], sqlite_where=text("claimed_by IS NOT NULL"))
    operations.add_column("tasks", Column("graph", Text))
    operations.add_column("tasks", Column("node", Text))
    operations.create_index("tasks_by_graph", "tasks", ["graph", "number"], sqlite_where=text("graph IS NOT NULL"))
    operations.create_table(
        "commits",
        Column("writer", Text, primary_key=True),
        Column("token", Text, nullable=False),
        Column("created", Float, nullable=False),
    )
    operations.create_table(
        "departures",
        Column("number", Integer, primary_key=True),
        Column("task", Integer, ForeignKey("tasks.number", ondelete="CASCADE"), nullable=False),
        Column("device", Text, nullable=False),
        Column("chosen", Float, nullable=False),
        Column("left", Float, nullable=False),
        if_not_exists=True,
    )
    operations.create_index("ix_departures_task", "departures", ["task"], if_not_exists=True)
    operations.drop_index("tasks_queued", "tasks", if_exists=True)
    operations.create_index(
        "tasks_queued",
        "tasks",
        ["asked_device", "os", "capabilities", text("priority DESC"), "number"],
        sqlite_where=text("state = 'queued'"),
    )
    _create_tables_of_clusters(operations)
    _create_tables_of_graphs(operations)


def _create_tables_of_clusters(operations: Operations) -> None:
    operations.create_table(
        "daemons",
        Column("id", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("url", Text),
        Column("started", Float, nullable=False),
        Column("expires", Float, nullable=False),
        Column("died", Float),
        Column("draining", Float),
    )
    operations.create_table(
        "devices",
        Column("name", Text, primary_key=True),
        Column("config", Text, nullable=False),
    )
    operations.create_table(
        "ownership",
        Column("device", Text, primary_key=True),
        Column("owner", Text),
        Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    )
    operations.create_table(
        "device_states",
        Column("device", Text, primary_key=True),
        Column("state", Text, nullable=False),
        Column("changed", Float, nullable=False),
    )
    operations.create_table(
        "events",
        Column("id", Integer, primary_key=True),
        Column("writer", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("data", Text, nullable=False),
        Column("at", Float, nullable=False),
        sqlite_autoincrement=True,
    )


def _create_tables_of_graphs(operations: Operations) -> None:
    operations.create_table(
        "graphs",
        Column("number", Integer, primary_key=True),
        Column("id", Text, nullable=False, unique=True),
        Column("name", Text),
        Column("state", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("metadata", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("counts", Text, nullable=False),
        Column("created", Float, nullable=False),
        Column("ended", Float),
        Column("cancelled", Float),
        Column("idempotency_key", Text),
        UniqueConstraint("idempotency_key"),
        sqlite_autoincrement=True,
    )
    operations.create_index("graphs_by_state", "graphs", ["state", "number"])
    operations.create_table(
        "graph_nodes",
        Column("graph", Integer, ForeignKey("graphs.number", ondelete="CASCADE"), primary_key=True),
        Column("id", Text, primary_key=True),
        Column("number", Integer, nullable=False),
        Column("spec", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("undecided", Integer, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("task", Text),
        Column("not_before", Float),
        Column("cancelled", Boolean, nullable=False),
        Column("ended", Float),
    )
    operations.create_index("graph_nodes_ready", "graph_nodes", ["graph"], sqlite_where=text("state = 'ready'"))
    operations.create_index(
        "graph_nodes_delayed", "graph_nodes", ["not_before"], sqlite_where=text("not_before IS NOT NULL")
    )
    operations.create_table(
        "graph_edges",
        Column("graph", Integer, ForeignKey("graphs.number", ondelete="CASCADE"), primary_key=True),
        Column("id", Text, primary_key=True),
        Column("number", Integer, nullable=False),
        Column("source", Text, nullable=False),
        Column("target", Text, nullable=False),
        Column("when", Text, nullable=False),
        Column("condition", Text),
        Column("metadata", Text),
        Column("holds", Boolean),
    )
    operations.create_index("graph_edges_by_source", "graph_edges", ["source", "graph", "number"])
    operations.create_index("graph_edges_by_target", "graph_edges", ["target", "graph", "number"])
