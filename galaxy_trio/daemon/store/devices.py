"""The devices of a cluster, and their states as their owners report them.

Rule 13 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, exists, select

from galaxy_trio.daemon.store.events import CLUSTER, publish
from galaxy_trio.daemon.store.schema import DEVICE_STATES, DEVICES, OWNERSHIP
from galaxy_trio.daemon.store.statements import insert_if_absent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Executable

    from galaxy_trio.daemon.store.committer import Transaction

_OWNS: Final = exists().where(OWNERSHIP.c.device == bindparam("of_device"), OWNERSHIP.c.owner == bindparam("me"))


def read_devices(connection: Connection) -> dict[str, str]:
    """The configuration of each device as JSON, by name and in the order of their names."""
    rows = connection.execute(select(DEVICES.c.name, DEVICES.c.config).order_by(DEVICES.c.name))
    return {row.name: row.config for row in rows}


def seed_devices(transaction: Transaction, configs: Mapping[str, str]) -> dict[str, str]:
    """Add devices if there are none.

    Returns:
        The devices that there are then, as `read_devices` does.
    """
    connection = transaction.connection
    if not read_devices(connection):
        _insert(connection, configs)
    return read_devices(connection)


def replace_devices(transaction: Transaction, configs: Mapping[str, str]) -> dict[str, str]:
    """Replace all devices by these.

    Returns:
        Those that there were before, as `read_devices` does.
    """
    connection = transaction.connection
    before = read_devices(connection)
    connection.execute(delete(DEVICES))
    _insert(connection, configs)
    gone = DEVICE_STATES.c.device.not_in(select(DEVICES.c.name))
    connection.execute(delete(DEVICE_STATES).where(gone))
    publish(transaction, [(CLUSTER, {})])
    return before


def _insert(connection: Connection, configs: Mapping[str, str]) -> None:
    # Another daemon may do the same at this moment, with the same file.
    rows = [{"name": name, "config": config} for name, config in configs.items()]
    if rows:
        connection.execute(insert_if_absent(DEVICES, connection.dialect.name), rows)


def report(
    transaction: Transaction,
    life: str,
    states: Mapping[str, str],
    events: Iterable[tuple[str, Mapping[str, object]]] = (),
) -> None:
    """Store the states of devices as JSON, by name, and publish their events.

    The states of devices that the daemon does not own any more are left out.
    """
    publish(transaction, events)
    connection = transaction.connection
    now = transaction.now.timestamp()
    for device, state in states.items():
        if connection.execute(select(_OWNS), {"of_device": device, "me": life}).scalar_one():
            values = {"device": device, "state": state, "changed": now}
            connection.execute(_set_state(connection.dialect.name), values)


@cache
def _set_state(dialect: str) -> Executable:
    statement: Any = import_module(f"sqlalchemy.dialects.{dialect}").insert(DEVICE_STATES)  # Any: of the dialect
    new = statement.excluded
    changed: Executable = statement.on_conflict_do_update(
        index_elements=[DEVICE_STATES.c.device], set_={"state": new.state, "changed": new.changed}
    )
    return changed


def read_states(connection: Connection) -> dict[str, str]:
    """The last reported state of each device as JSON, by name."""
    rows = connection.execute(select(DEVICE_STATES.c.device, DEVICE_STATES.c.state))
    return {row.device: row.state for row in rows}
