"""Migrations of existing databases, one module for each version of the schema.

`version_2` changes a database of version 1 into one of version 2, and so on. A migration adds tables and columns that may be
NULL or have a default, and makes or replaces indexes. A daemon of the version before can go on with the database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from galaxy_trio.daemon.store.schema import VERSION

if TYPE_CHECKING:
    from sqlalchemy import Connection


def upgrade(connection: Connection, found: int) -> None:
    """Change a database of an older version into one of this version, in the connection's transaction.

    The caller commits it, together with the new version, and holds a lock against other daemons.

    Args:
        connection: The connection to the database.
        found: The database's version.
    """
    # Only an upgrade needs Alembic, whose import takes longer than opening the database.
    from alembic.migration import MigrationContext  # noqa: PLC0415  # see above
    from alembic.operations import Operations  # noqa: PLC0415  # see above

    operations = Operations(MigrationContext.configure(connection))
    for version in range(found + 1, VERSION + 1):
        import_module(f"{__name__}.version_{version}").upgrade(operations)
