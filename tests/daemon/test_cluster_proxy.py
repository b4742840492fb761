"""Daemons of a cluster behind nginx, with the configuration of the how-to guide."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.web.security import MAX_GRAPH_BODY
from tests.daemon.support.listener import listen_on
from tests.daemon.support.reverse_proxy import NAME, Proxy, documented, open_nginx
from tests.daemon.support.small_cluster import open_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.daemon.store.location import PostgresqlLocation
    from tests.daemon.support.daemon import RunningDaemon

pytestmark = pytest.mark.daemon

ALLOWED = f'allowed_hosts = ["{NAME}"]\n'
TASK = {"request": "echo", "device": "d1"}


@asynccontextmanager
async def _open(
    directory: Path, location: PostgresqlLocation
) -> AsyncGenerator[tuple[RunningDaemon, RunningDaemon, Proxy]]:
    """Two daemons, and a third address at which there is none."""
    async with open_pair(directory, location, settings=ALLOWED) as (first, second, _):
        names = zip(("10.0.0.1:8765", "10.0.0.2:8765", "10.0.0.3:8765"), ("a", "b", "none"), strict=True)
        addresses = {address: f"unix:{directory / name / 's'}" for address, name in names}
        async with open_nginx(directory, documented("nginx in front", "nginx", page="cluster"), addresses) as proxy:
            yield first, second, proxy


async def test_requests_are_answered_while_daemons_stop(tmp_path: Path, location: PostgresqlLocation) -> None:
    async with _open(tmp_path, location) as (first, _, proxy), proxy.client() as client:
        for number in range(6):
            answer = await client.post("/tasks", json={**TASK, "idempotency_key": str(number)})
            assert answer.status_code == 202, answer.text
        first.stop.set()
        await first.ended.wait()
        for _ in range(6):
            assert (await client.get("/tasks")).status_code == 200
        # Accepted before, whichever daemon is asked.
        assert (await client.post("/tasks", json={**TASK, "idempotency_key": "0"})).status_code == 200


async def test_graph_that_is_larger_than_other_requests_passes_the_proxy(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    async with _open(tmp_path, location) as (_, _, proxy), proxy.client() as client:
        # A daemon says what is wrong with it.
        answer = await client.post("/graphs", json={"nodes": "x" * (MAX_GRAPH_BODY - len('{"nodes":""}'))})
        assert answer.status_code == 422, answer.text


async def test_events_go_on_at_another_daemon_when_theirs_stops(tmp_path: Path, location: PostgresqlLocation) -> None:
    async with _open(tmp_path, location) as (first, second, proxy), proxy.client() as client:
        async with listen_on(await proxy.connect(), NAME) as events:
            task = (await client.post("/tasks", json=TASK)).json()["id"]
            await events.until("task", id=task, state="completed")
            last = events.last_id or ""
        first.stop.set()
        await first.ended.wait()
        later = await second.submit("echo")
        async with listen_on(await proxy.connect(), NAME, ("Last-Event-ID", last)) as events:
            await events.until("task", id=later, state="queued")
