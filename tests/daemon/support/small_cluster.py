"""Daemons in the test's process that share a PostgreSQL database, each with an AIP server of its own that has all devices."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from tests.daemon.support.daemon import RunningDaemon, open_daemon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.daemon.store.location import PostgresqlLocation
    from tests.constellation.support.fleet import Work


def member_settings(location: PostgresqlLocation, name: str) -> str:
    """The settings of a daemon of a cluster, with a lease of 3 s."""
    return (
        f'database = "{location.url}"\ncluster = "{location.cluster}"\nlease = 3\n'
        f'name = "{name}"\nurl = "http://{name}.example.org:8765"\n'
    )


@asynccontextmanager
async def open_member(
    directory: Path,
    location: PostgresqlLocation,
    name: str,
    *devices: str,
    work: Work | None = None,
    settings: str = "",
) -> AsyncGenerator[RunningDaemon]:
    """Run a daemon of a cluster inside the block."""
    (directory / name).mkdir(exist_ok=True)
    settings = member_settings(location, name) + settings
    async with open_daemon(directory / name, *devices, settings=settings, work=work) as daemon:
        yield daemon


@asynccontextmanager
async def open_pair(
    directory: Path, location: PostgresqlLocation, work: Work | None = None, settings: str = ""
) -> AsyncGenerator[tuple[RunningDaemon, RunningDaemon, str]]:
    """Run the daemons ``a`` and ``b``, each of which owns one of two devices that are connected. The third value is the device of ``b``."""
    async with (
        open_member(directory, location, "a", "d1", "d2", work=work, settings=settings) as first,
        open_member(directory, location, "b", "d1", "d2", work=work, settings=settings) as second,
    ):
        await wait_owners(first, "a", "b")
        await first.wait_connected(2)
        [far] = [device for device, owner in (await owners(first)).items() if owner == "b"]
        yield first, second, far


async def owners(daemon: RunningDaemon) -> dict[str, str | None]:
    """The owner of each device, by their names."""
    devices = (await daemon.ask("GET", "/devices"))["devices"]
    return {device["device_id"]: device["owner"] for device in devices}


async def wait_owners(daemon: RunningDaemon, *expected: str | None) -> None:
    """Wait until the devices have these owners, in any order."""
    while sorted(map(str, (await owners(daemon)).values())) != sorted(map(str, expected)):  # noqa: ASYNC110  # HTTP has no event for it
        await trio.sleep(0.02)
