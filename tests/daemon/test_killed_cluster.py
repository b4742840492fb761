"""Daemons of a cluster are killed, paused and cut off from their database under load.

No accepted task is missing, none begins twice, none is stuck, and each device is owned and connected again in time.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
import trio

from tests.daemon.support.cluster import LEASE, Cluster, Load, open_cluster
from tests.daemon.support.cutting_proxy import CuttingProxy, open_cutting_proxy
from tests.daemon.support.postgresql import PostgresqlServer, open_postgresql, unique_name
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [pytest.mark.daemon, pytest.mark.simulation]

FAULTS: Final = int(os.environ.get("GALAXY_TRIO_KILLS", "20"))
FAULTS_EACH: Final = 4
"""Faults of one cluster, one after the other."""
CLIENTS: Final = 16
_MAX_RECOVERY: Final = 4 / 3 * LEASE + 5
"""Seconds from the beginning of a kill or a pause, and from the end of any other fault, until each device is connected again.

The AIP servers' limit of silence is one lease.
"""
KINDS: Final = ("kill", "pause", "restart of the database", "cuts", "cut commits")


@pytest.fixture(scope="module")
def own_postgresql() -> Generator[PostgresqlServer]:
    """A server that these tests may restart."""
    with open_postgresql() as server:
        yield server


async def _disturb(kind: str, world: Cluster, server: PostgresqlServer, proxy: CuttingProxy, random: Random) -> float:
    """Cause a fault, and return how many seconds it took until all devices were owned and connected."""
    if kind in ("kill", "pause"):
        return await _disturb_daemon(kind, world, random)
    match kind:
        case "restart of the database":
            await trio.to_thread.run_sync(server.stop)
            await trio.sleep(random.uniform(0, 0.5 * LEASE))
            await trio.to_thread.run_sync(server.start)
        case "cuts":
            for _ in range(5):
                proxy.cut_all()
                await trio.sleep(random.uniform(0, 0.2))
        case _:
            proxy.cut_commits(8)
            await trio.sleep(1)
    began = trio.current_time()
    await world.wait_taken_over(random, set())
    return trio.current_time() - began


async def _disturb_daemon(kind: str, world: Cluster, random: Random) -> float:
    number = random.randrange(len(world.daemons))
    lives = await world.lives_of(random, number)
    began = trio.current_time()
    recovered = math.inf

    async def measure() -> None:
        nonlocal recovered
        await world.wait_taken_over(random, lives)
        recovered = trio.current_time()

    if kind == "kill":
        await world.kill(number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure)
        if kind == "kill":
            await trio.sleep(random.uniform(0, 1.5 * LEASE))
            await world.start(number)
        else:
            await world.pause(number, random.uniform(1.1, 1.8) * LEASE)
    return recovered - began


@pytest.mark.parametrize("seed", range(FAULTS // FAULTS_EACH))
async def test_cluster_keeps_every_accepted_task_and_begins_none_twice(
    seed: int, tmp_path: Path, own_postgresql: PostgresqlServer
) -> None:
    random = Random(seed)
    # Each kind comes first as often as the others.
    kinds = [KINDS[seed % len(KINDS)], *random.choices(KINDS, k=FAULTS_EACH - 1)]
    recovered: list[str] = []
    with trio.fail_after(10 * SECONDS):
        async with open_cutting_proxy(own_postgresql.directory, random) as proxy:
            database = f"postgresql+psycopg://postgres@/postgres?host={proxy.directory}"
            async with open_cluster(tmp_path, database, unique_name()) as world:
                await world.wait_owned(random)
                load = Load(world, random)
                async with trio.open_nursery() as nursery:
                    for _ in range(CLIENTS):
                        nursery.start_soon(load.submit)
                    for kind in kinds:
                        await trio.sleep(random.uniform(0.1, 1))
                        took = await _disturb(kind, world, own_postgresql, proxy, random)
                        recovered.append(f"{kind}: {took:.1f} s")
                        assert took < _MAX_RECOVERY, (kind, took, world.logs())
                        await world.wait_owned(random)
                    load.stopped.set()
                await _check(world, load, random)
                states = Counter(task["state"] for task in (await load.ended()).values())
    [(deadlocks,)] = await trio.to_thread.run_sync(
        own_postgresql.execute, "SELECT sum(deadlocks) FROM pg_stat_database"
    )
    sys.stdout.write(
        f"seed {seed}: {dict(states)}, {deadlocks} deadlocks until now; "
        f"all devices connected again after {', '.join(recovered)}\n"
    )


async def _check(world: Cluster, load: Load, random: Random) -> None:
    """Check that each accepted task has ended, that none began twice, and that those that completed have their own results."""
    ended = await load.ended()
    assert load.accepted.keys() == ended.keys()
    twice = {request: count for request, count in world.ran.begun.items() if count > 1}
    assert not twice, (twice, world.logs())
    completed = [request for request, task in ended.items() if task["state"] == "completed"]
    assert {task["state"] for task in ended.values()} <= {"completed", "lost"}, world.logs()
    assert {world.ran.begun[request] for request in completed} == {1}
    for request in random.sample(completed, min(20, len(completed))):
        assert await load.result(load.accepted[request]) == request
    assert "Traceback" not in world.logs(), world.logs()


async def test_rolling_restart_under_load_loses_nothing(tmp_path: Path, own_postgresql: PostgresqlServer) -> None:
    random = Random(0)
    with trio.fail_after(10 * SECONDS):
        async with open_cluster(tmp_path, own_postgresql.url(), unique_name(), daemons=3, devices=12) as world:
            await world.wait_owned(random)
            load = Load(world, random)
            took: list[float] = []
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(load.submit)
                for number in range(3):
                    began = trio.current_time()
                    assert await world.stop(number) == 0
                    took.append(trio.current_time() - began)
                    await world.start(number)
                load.stopped.set()
            await _check(world, load, random)
            others = [task for task in (await load.ended()).values() if task["state"] != "completed"]
            assert not others, world.logs()
    sys.stdout.write(f"rolling restart of three daemons: {', '.join(f'{seconds:.1f} s' for seconds in took)} to stop\n")
