"""Where the daemon's database is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, TypeAlias

import attrs

POSTGRESQL: Final = "postgresql+psycopg://"
"""The beginning of the URL of a PostgreSQL database."""
DEFAULT_CLUSTER: Final = "galaxy"


@attrs.frozen
class PostgresqlLocation:
    """A PostgreSQL database, and the cluster of daemons that it is for.

    Attributes:
        url: ``postgresql+psycopg://…``, which may contain a password.
        cluster: Names the schema, the lock and the channel in the database: several clusters can share one.
    """

    url: str = attrs.field(repr=False)
    cluster: str = DEFAULT_CLUSTER


Location: TypeAlias = Path | PostgresqlLocation
"""A path is an SQLite database."""


def is_cluster_name(text: str) -> bool:
    """Whether a cluster may have this name: it is a name in PostgreSQL too, which is not reserved there and needs no care in a shell."""
    return re.fullmatch(r"(?!pg_)[a-z][a-z0-9_-]{0,39}", text) is not None
