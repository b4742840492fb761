"""What a daemon without a lease says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.store.location import MIN_LEASE
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.daemon.store.location import PostgresqlLocation
    from tests.daemon.support.postgresql import PostgresqlServer

pytestmark = pytest.mark.daemon


async def test_daemon_whose_lease_ends_while_the_database_is_away_says_so_from_the_first_refusal(
    tmp_path: Path, postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    settings = f'database = "{location.url}"\ncluster = "{location.cluster}"\nlease = {MIN_LEASE:g}\n'
    async with open_daemon(tmp_path, "d1", settings=settings) as daemon:
        await daemon.wait_connected(1)
        postgresql.stop()
        try:
            # This is answered from memory as long as the lease lasts.
            while (response := await daemon.client.get("/devices")).status_code == 200:
                pass
        finally:
            postgresql.start()
        assert response.status_code == 503
        assert "this daemon has lost its lease" in response.json()["error"]
        # Then it begins a new life, with the device.
        while (response := await daemon.client.get("/ready")).status_code != 200:
            pass
        assert response.json()["connected"] == 1
