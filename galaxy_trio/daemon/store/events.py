"""The latest changes of tasks and devices, in the database, so that any daemon can deliver them, also after a restart.

Transactions that write events commit in the order of the events' ids (see `Database.order_events`). So a reader that continues after the
highest id that it has read misses nothing.

Rule 11 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from collections.abc import Sequence  # attrs reads annotations at run time
from typing import TYPE_CHECKING, Final

import attrs
from sqlalchemy import bindparam, delete, func, select, update

from galaxy_trio.daemon.store.schema import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction

MAX_EVENTS: Final = 10_000
"""Events that are kept."""
MAX_SIZE: Final = 16 * 2**20
"""Bytes of the data of the events that are kept."""
CLUSTER: Final = "cluster"
"""The kind of the event that says that daemons, devices or owners have changed."""
CANCEL: Final = "cancel"
RECONNECT: Final = "reconnect"
FREE: Final = "free"
INTERNAL: Final = (CANCEL, RECONNECT, FREE)
"""The kinds of events by which a daemon asks the others to cancel a task or to reconnect a device, or reports that a queued task can be
claimed. Clients do not see them."""
MAX_DELETED: Final = 1_000
"""Events that are deleted in one transaction; other writes run between two."""
_PAGE: Final = 100
"""Events that are read at a time."""
_PAGE_SIZE: Final = 2**16
"""Bytes of the data of the events in a page, unless it is a single one."""


@attrs.frozen
class StoredEvent:
    """An event.

    Attributes:
        id: Its place in the order of all events. Some numbers are missing.
        writer: The life of the daemon that wrote it.
        kind: Its name.
        data: Its data as JSON in ASCII.
    """

    id: int
    writer: str
    kind: str
    data: str


@attrs.frozen
class Page:
    """Events in order.

    Attributes:
        events: The events; none after the newest.
        has_more: Whether more events follow.
    """

    events: Sequence[StoredEvent]
    has_more: bool


class EventsDeleted(Exception):
    """Some events after an id are not kept any more."""


_DELETED: Final = "deleted"
"""The kind that marks the place of the newest event that was deleted, always the oldest row."""
_FIRST: Final = select(EVENTS.c.id, EVENTS.c.kind).order_by(EVENTS.c.id).limit(1)
_NEWEST: Final = select(func.coalesce(func.max(EVENTS.c.id), 0))
_AFTER: Final = (
    select(EVENTS.c.id, EVENTS.c.writer, EVENTS.c.kind, EVENTS.c.data)
    .where(EVENTS.c.id > bindparam("after"))
    .order_by(EVENTS.c.id)
    .limit(_PAGE + 1)
)
_LATEST: Final = (
    select(
        EVENTS.c.id,
        EVENTS.c.at,
        func.sum(func.length(EVENTS.c.data)).over(order_by=EVENTS.c.id.desc(), rows=(None, 0)).label("size"),
    )
    .order_by(EVENTS.c.id.desc())
    .limit(bindparam("keep"))
    .subquery()
)
_OLDEST_KEPT: Final = select(func.min(_LATEST.c.id)).where(
    _LATEST.c.size <= bindparam("max_size"), _LATEST.c.at >= bindparam("older_than")
)
_NEWEST_OLD: Final = (
    select(EVENTS.c.id, EVENTS.c.kind)
    .where(EVENTS.c.id < func.coalesce(_OLDEST_KEPT.scalar_subquery(), _NEWEST.scalar_subquery() + 1))
    .order_by(EVENTS.c.id.desc())
    .limit(1)
)
_TO_DELETE: Final = (
    select(EVENTS.c.id).where(EVENTS.c.id <= bindparam("last")).order_by(EVENTS.c.id).limit(bindparam("limit"))
)
_MARK: Final = update(EVENTS).where(EVENTS.c.id == bindparam("place")).values(kind=_DELETED, data="{}")
_DELETE: Final = delete(EVENTS).where(EVENTS.c.id < bindparam("place"))


def publish(transaction: Transaction, events: Iterable[tuple[str, Mapping[str, object]]]) -> None:
    """Publish events that belong to no other operation, by their kinds and data."""
    for kind, data in events:
        transaction.publish(kind, data)


def bounds(connection: Connection) -> tuple[int, int]:
    """The ids of the newest event that was deleted, and of the newest event; 0 for none."""
    first = connection.execute(_FIRST).one_or_none()
    newest: int = connection.execute(_NEWEST).scalar_one()
    return first.id if first is not None and first.kind == _DELETED else 0, newest


def events_after(connection: Connection, after: int) -> Page:
    """A page of the events after an id.

    Raises:
        EventsDeleted: Some of them are not kept any more.
    """
    events: list[StoredEvent] = []
    size = 0
    for number, writer, kind, data in connection.execute(_AFTER, {"after": after}):
        if kind == _DELETED:
            raise EventsDeleted
        size += len(data)
        if len(events) == _PAGE or (events and size > _PAGE_SIZE):
            return Page(events, has_more=True)
        events.append(StoredEvent(number, writer, kind, data))
    return Page(events, has_more=False)


def newest_old(connection: Connection, older_than: datetime) -> int:
    """The id of the newest event to delete; 0 for none.

    The latest `MAX_EVENTS` with at most `MAX_SIZE` bytes are kept, unless they are older than a time.
    """
    values = {"keep": MAX_EVENTS, "max_size": MAX_SIZE, "older_than": older_than.timestamp()}
    row = connection.execute(_NEWEST_OLD, values).one_or_none()
    return 0 if row is None or row.kind == _DELETED else row.id


def delete_events(transaction: Transaction, last: int) -> int:
    """Delete up to `MAX_DELETED` of the events up to an id, and mark the place of the last deleted one.

    Returns:
        The id of that one, 0 if there was none to delete.
    """
    connection = transaction.connection
    ids: Sequence[int] = connection.execute(_TO_DELETE, {"last": last, "limit": MAX_DELETED}).scalars().all()
    if not ids:
        return 0
    connection.execute(_MARK, {"place": ids[-1]})
    connection.execute(_DELETE, {"place": ids[-1]})
    return ids[-1]
