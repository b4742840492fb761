"""Where the daemon's database is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, TypeAlias

import attrs

POSTGRESQL: Final = "postgresql+psycopg://"
"""The beginning of the URL of a PostgreSQL database."""
DEFAULT_CLUSTER: Final = "galaxy"
DEFAULT_LEASE: Final = 30.0
MIN_LEASE: Final = 3.0
MAX_LEASE: Final = 3_600.0
"""Seconds."""


@attrs.frozen
class PostgresqlLocation:
    """A PostgreSQL database, and the cluster of daemons that it is for.

    Attributes:
        url: ``postgresql+psycopg://…``, which may contain a password.
        cluster: Names the schema, the lock and the channel in the database: several clusters can share one.
        lease: Seconds after which a daemon that does not answer any more loses its devices to the others.
    """

    url: str = attrs.field(repr=False)
    cluster: str = DEFAULT_CLUSTER
    lease: float = DEFAULT_LEASE


Location: TypeAlias = Path | PostgresqlLocation
"""A path is an SQLite database."""


def is_cluster_name(text: str) -> bool:
    """Whether a cluster may have this name: it is a name in PostgreSQL too, which is not reserved there and needs no care in a shell."""
    return re.fullmatch(r"(?!pg_)[a-z][a-z0-9_-]{0,39}", text) is not None
