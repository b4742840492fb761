"""The owner of each device: the daemon's life that is connected to it, and an epoch that grows with each change of the owner.

What an owner writes is checked against its life and its epoch, so that it is refused when it comes too late.

Rule 4 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, select, update

from galaxy_trio.daemon.store.lives import require_alive
from galaxy_trio.daemon.store.schema import OWNERSHIP
from galaxy_trio.daemon.store.statements import insert_if_absent

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction

_OWNS: Final = (
    select(OWNERSHIP.c.device)
    .where(
        OWNERSHIP.c.device == bindparam("of_device"),
        OWNERSHIP.c.owner == bindparam("life"),
        OWNERSHIP.c.epoch == bindparam("in_epoch"),
    )
    .with_for_update(read=True)
)


def fair_share(devices: int, daemons: int) -> int:
    """The number of devices for each of the living daemons, rounded up: so that all devices have an owner."""
    return -(-devices // max(daemons, 1))


def ensure_devices(transaction: Transaction, names: Collection[str]) -> None:
    """Let devices be owned; those that can be already stay as they are."""
    connection = transaction.connection
    if names:
        rows = [{"device": name} for name in sorted(names)]
        connection.execute(insert_if_absent(OWNERSHIP, connection.dialect.name), rows)


def forget_devices(transaction: Transaction, names: Collection[str]) -> None:
    """Take devices from their owners: no life can own them any more. If they are added again, their epochs begin at 0."""
    transaction.connection.execute(delete(OWNERSHIP).where(OWNERSHIP.c.device.in_(names)))


def take_devices(transaction: Transaction, life: str, candidates: Collection[str], limit: int) -> dict[str, int]:
    """Take devices without an owner, at most `limit` of the candidates. Those that another transaction changes now are left out.

    If it is not known whether the transaction took place, `owners` says what was taken.

    Returns:
        The epoch of each device that was taken.

    Raises:
        LifeOver: The life is over; nothing was taken.
    """
    require_alive(transaction, life)
    free = (
        select(OWNERSHIP.c.device)
        .where(OWNERSHIP.c.owner.is_(None), OWNERSHIP.c.device.in_(candidates))
        .order_by(OWNERSHIP.c.device)
        .limit(max(limit, 0))
        .with_for_update(skip_locked=True)
    )
    # The second statement would see the rows as they were before they were locked, if it were a part of the first.
    found = transaction.connection.scalars(free).all()
    taken = (
        update(OWNERSHIP)
        .where(OWNERSHIP.c.device.in_(found))
        .values(owner=life, epoch=OWNERSHIP.c.epoch + 1)
        .returning(OWNERSHIP.c.device, OWNERSHIP.c.epoch)
    )
    return {row.device: row.epoch for row in transaction.connection.execute(taken)}


def release_devices(transaction: Transaction, life: str, names: Collection[str]) -> list[str]:
    """Release those of the devices that the life owns. Tasks that it runs on them are still its own.

    Returns:
        The names of the devices that were released, sorted.
    """
    released = (
        update(OWNERSHIP)
        .where(OWNERSHIP.c.owner == life, OWNERSHIP.c.device.in_(names))
        .values(owner=None, epoch=OWNERSHIP.c.epoch + 1)
        .returning(OWNERSHIP.c.device)
    )
    return sorted(transaction.connection.scalars(released))


def owns(connection: Connection, life: str, device: str, epoch: int) -> bool:
    """Whether a life owns a device in this epoch. If so, it does until the end of the transaction, which may begin a task on it."""
    values = {"of_device": device, "life": life, "in_epoch": epoch}
    return connection.execute(_OWNS, values).first() is not None


def owners(connection: Connection) -> dict[str, tuple[str | None, int]]:
    """The owner of each device, or `None`, and its epoch."""
    rows = connection.execute(select(OWNERSHIP.c.device, OWNERSHIP.c.owner, OWNERSHIP.c.epoch))
    return {device: (owner, epoch) for device, owner, epoch in rows}
