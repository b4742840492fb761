"""Version 2: tokens of attempts and of transactions, priorities, and claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, Float, ForeignKey, Integer, SmallInteger, Text, text

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(operations: Operations) -> None:
    """Upgrade from version 1, also from one of its early forms without `departures` or `tasks_queued`."""
    operations.add_column("tasks", Column("attempt", Text))
    operations.add_column("tasks", Column("priority", SmallInteger, nullable=False, server_default=text("0")))
    operations.add_column("tasks", Column("claimed_by", Text))
    operations.create_index("tasks_claimed", "tasks", ["claimed_by"], sqlite_where=text("claimed_by IS NOT NULL"))
    operations.create_table("commits", Column("writer", Text, primary_key=True), Column("token", Text, nullable=False))
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
