"""Lives of daemons: each run of a daemon has a fresh id and a lease, which it renews. A life is over when its death is written.

A transaction that takes something for a life first locks the life's row with `is_alive`, so that the life cannot die before the
transaction ends: what the dead have is all on disk when they are found dead. PostgreSQL has locks of three strengths for that:

- Taking locks the row FOR KEY SHARE. Any number of transactions may, for example all of a group commit.
- Renewing changes `expires`, which is no key: it does not conflict with KEY SHARE, so a long transaction delays no renewal.
- Death locks the row FOR UPDATE, which conflicts with both. It skips a row that is locked, and is tried again later.

SQLite has one transaction that writes at a time, and ignores these locks.

Rule 1 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from sqlalchemy import delete, select, update

from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.database_clock import now_of_database
from galaxy_trio.daemon.store.events import CLUSTER
from galaxy_trio.daemon.store.schema import COMMITS, DAEMONS
from galaxy_trio.daemon.store.statements import insert_if_absent

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction

MAX_LIVES: Final = 1_000
"""Lives that are read at a time."""
_MAX_DELETED: Final = 100
"""Lives that are deleted when one begins, and so the number of lives on disk is bounded."""
_KEPT: Final = 86_400.0
"""Seconds for which dead lives are shown."""


@attrs.frozen
class Life:
    """A run of a daemon. Times are in epoch seconds of the database's clock.

    Attributes:
        id: 32 hexadecimal digits.
        name: The name of the daemon, for people.
        url: Where other daemons and clients reach it; `None` if they do not.
        started: When it began.
        expires: The end of its lease, infinite with SQLite.
        died: When it was stopped or found to be dead; `None` while it lives.
        draining: Since when it gives its devices to the others; `None` if it does not.
    """

    id: str
    name: str
    url: str | None
    started: float
    expires: float
    died: float | None
    draining: float | None = None


def begin_life(transaction: Transaction, life: str, name: str, url: str | None, lease: float) -> None:
    """Begin a life with a lease in seconds, `math.inf` with SQLite. Does nothing if it has begun already.

    Deletes some of the lives that died more than a day ago.
    """
    connection = transaction.connection
    now = now_of_database(connection, transaction.now)
    values = {"id": life, "name": name, "url": url, "started": now, "expires": now + lease}
    connection.execute(insert_if_absent(DAEMONS, connection.dialect.name).values(values))
    _delete_old(transaction)
    # The others give it its share of the devices.
    transaction.publish(CLUSTER, {})


def renew_life(connection: Connection, life: str, lease: float, now: datetime) -> bool:
    """Renew a lease: it ends `lease` seconds from now, by the database's clock. An expired lease can be renewed until the death is written.

    Args:
        connection: Best one of its own: a group commit may wait for the disk, or for locks.
        life: The id of the life.
        lease: Seconds.
        now: The time, for databases without a clock.

    Returns:
        Whether the life goes on. Otherwise it is over for good.
    """
    renewal = (
        update(DAEMONS)
        .where(DAEMONS.c.id == life, DAEMONS.c.died.is_(None))
        .values(expires=now_of_database(connection, now) + lease)
    )
    return connection.execute(renewal).rowcount > 0


def drain_lives(transaction: Transaction, lives: Collection[str]) -> None:
    """Let lives drain: they own no devices any more, as far as there are other lives that may."""
    now = now_of_database(transaction.connection, transaction.now)
    not_yet = (DAEMONS.c.id.in_(lives), DAEMONS.c.draining.is_(None))
    transaction.connection.execute(update(DAEMONS).where(*not_yet).values(draining=now))
    transaction.publish(CLUSTER, {})


def is_alive(connection: Connection, life: str) -> bool:
    """Whether a life is not over. If so, it stays alive until the end of the transaction: what it takes in it is found if it dies later."""
    living = select(DAEMONS.c.id).where(DAEMONS.c.id == life, DAEMONS.c.died.is_(None))
    locked = living.with_for_update(read=True, key_share=True)
    return connection.execute(locked).first() is not None


def require_alive(transaction: Transaction, life: str) -> None:
    """Keep a life alive, as `is_alive` does.

    Raises:
        LifeOver: It is over.
    """
    if not is_alive(transaction.connection, life):
        raise LifeOver


def read_lives(connection: Connection) -> list[Life]:
    """The living, then those that died within about a day; of each the latest first, at most `MAX_LIVES` together."""
    lease = (DAEMONS.c.started, DAEMONS.c.expires, DAEMONS.c.died, DAEMONS.c.draining)
    order = (DAEMONS.c.died.is_not(None), DAEMONS.c.started.desc(), DAEMONS.c.id)
    found = select(DAEMONS.c.id, DAEMONS.c.name, DAEMONS.c.url, *lease).order_by(*order).limit(MAX_LIVES)
    return [Life(*row) for row in connection.execute(found)]


def _delete_old(transaction: Transaction) -> None:
    """Delete lives that died long ago, and the rows of writers whose lives are not there."""
    connection = transaction.connection
    oldest = now_of_database(connection, transaction.now) - _KEPT
    old = select(DAEMONS.c.id).where(DAEMONS.c.died < oldest).limit(_MAX_DELETED)
    connection.execute(delete(DAEMONS).where(DAEMONS.c.id.in_(old.scalar_subquery())))
    # A store may be opened by a daemon that cannot begin its life then.
    lives = select(DAEMONS.c.id)
    orphans = select(COMMITS.c.writer).where(COMMITS.c.created < oldest, COMMITS.c.writer.not_in(lives))
    connection.execute(delete(COMMITS).where(COMMITS.c.writer.in_(orphans.limit(_MAX_DELETED).scalar_subquery())))
