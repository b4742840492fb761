"""The clock by which leases are compared: the database's, because the clocks of machines differ.

Rule 2 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Float, cast, extract, func, literal

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection


def now_of_database(connection: Connection, now: datetime) -> ColumnElement[float]:
    """The time as an expression, in epoch seconds: PostgreSQL's at that moment, and `now` with SQLite, which one process uses at a time."""
    if connection.dialect.name == "postgresql":
        return cast(extract("epoch", func.clock_timestamp()), Float)
    return literal(now.timestamp())
