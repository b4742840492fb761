"""The metrics of a daemon that shares its database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.store.location import DEFAULT_LEASE
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon


def _values(metrics: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf"^{name} (\S+)$", metrics, re.MULTILINE)]


@pytest.mark.usefixtures("each_database")
async def test_metrics_have_the_owned_devices_and_with_a_lease_the_seconds_until_it_ends(
    tmp_path: Path, database: Location
) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        await daemon.wait_connected(2)
        metrics = (await daemon.client.get("/metrics")).text
    assert _values(metrics, "galaxy_owned_devices") == [2]
    left = _values(metrics, "galaxy_lease_seconds")
    if hasattr(database, "lease"):
        assert len(left) == 1
        assert DEFAULT_LEASE / 2 < left[0] <= DEFAULT_LEASE
    else:
        assert left == []
