"""Finds the reasons for which a daemon could not start, without starting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import ConfigError, ConstellationConfig
from galaxy_trio._counted import counted
from galaxy_trio.daemon.configuration import check_storable
from galaxy_trio.daemon.store.database import DatabaseInUse, StoreError
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.location import PostgresqlLocation
from galaxy_trio.daemon.web.listening import AddressInUse, ListenError, open_listeners, parse_address

if TYPE_CHECKING:
    from galaxy_trio.daemon.settings import Settings


@attrs.frozen
class CheckedStart:
    """The result of a check.

    Attributes:
        devices: The configuration of the devices.
        running: A sentence about the daemon that runs with these settings; `None` if none does. Both its database and its address are in
            use then. A database that several daemons may use does not tell, and so the address alone counts.
    """

    devices: ConstellationConfig
    running: str | None


async def check_start(settings: Settings) -> CheckedStart:
    """Check everything that a daemon needs to start. It listens at its address for a moment, and creates no database.

    Cancelling is safe.

    Raises:
        ConfigError: The daemon could not start: `ConfigError.problems` has every reason, with the key of its setting.
    """
    problems: list[str] = []
    devices: ConstellationConfig | None = None
    tokens: tuple[str, ...] | None = None
    try:
        devices = await trio.to_thread.run_sync(settings.read_devices)
    except ConfigError as error:
        problems += [f"{settings.devices.name}: {problem}" for problem in error.problems] or [f"devices: {error}"]
    try:
        tokens = await trio.to_thread.run_sync(settings.read_tokens)
    except ConfigError as error:
        problems.append(f"token_file: {error}")
    try:
        if devices is not None:
            check_storable(settings, devices)
    except ConfigError as error:
        problems += [f"database: {problem}" for problem in error.problems]
    in_use: list[str] = []
    try:
        await trio.to_thread.run_sync(database_at(settings.database).check)
    except DatabaseInUse as error:
        in_use.append(f"database: {error}")
    except StoreError as error:
        problems.append(f"database: {error}")
    try:
        # Tokens that cannot be read are one problem, not two.
        async with open_listeners(
            parse_address(settings.listen),
            has_token=tokens != (),
            socket_mode=settings.socket_mode,
            socket_group=settings.socket_group,
        ):
            pass
    except AddressInUse as error:
        in_use.append(f"listen: {error}")
    except ListenError as error:
        problems.append(f"listen: {error}")
    running = _running(settings, in_use)
    if running is None:
        problems += in_use
    if problems or devices is None:
        reasons = counted(len(problems), "reason")
        raise ConfigError(f"the daemon cannot start, for {reasons}: " + "; ".join(problems), problems=problems)
    return CheckedStart(devices, running)


def _running(settings: Settings, in_use: list[str]) -> str | None:
    """See `CheckedStart.running`: the configuration of a running daemon may be checked before it is reloaded."""
    if isinstance(settings.database, PostgresqlLocation):
        unless = (
            "its address is in use: a daemon is running with this configuration, unless another program listens there"
        )
        return unless if in_use else None
    return "a daemon is running with this configuration" if len(in_use) == 2 else None
