"""Daemons are killed while users submit, edit, cancel and retry graphs: no graph is half-advanced or stuck, and no attempt begins twice."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
import trio
from sqlalchemy import func, select

from galaxy_trio.daemon.store.location import PostgresqlLocation
from galaxy_trio.daemon.store.schema import EVENTS
from galaxy_trio.messages import Command, ToolType
from tests.daemon.support.cluster import LEASE, Cluster, open_cluster
from tests.daemon.support.daemon_process import Ran
from tests.daemon.support.graph_consistency import inconsistencies
from tests.daemon.support.graph_documents import Documents, read_work
from tests.daemon.support.graph_promises import GraphEvents, broken_graph_promises
from tests.daemon.support.graph_users import Attempts, GraphUsers, Reply
from tests.daemon.support.lives import open_engine
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.server import ServerTask

pytestmark = [pytest.mark.daemon, pytest.mark.simulation]

KILLS: Final = int(os.environ.get("GALAXY_TRIO_KILLS", "20"))
"""Kills on each database."""
KILLS_EACH: Final = 5
"""Kills of one world, one after the other."""
USERS: Final = 4
DEVICES: Final = 4


class GraphRan(Ran):
    """Does the work of nodes, and records the attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = Attempts()

    async def __call__(self, task: ServerTask) -> object:
        work, task_id = read_work(task.request), task.session_id.rpartition("@")[2]
        assert work is not None
        fails = self.attempts.begin(task_id, work)
        await trio.sleep(work.seconds)
        await task.execute([Command("work", ToolType.ACTION, {"name": work.name})])
        if fails:
            raise RuntimeError("as its request says")
        return self.attempts.end(task_id, work)


class Observer:
    """Follows the events at one daemon after the other, and misses none."""

    def __init__(self, world: Cluster, random: Random) -> None:
        self._world = world
        self._random = random
        self.events = GraphEvents()
        self.last_id = 0

    async def follow(self) -> None:
        """Follow the events until this is cancelled."""
        while True:
            client, headers = self._world.any_client(self._random), {"Last-Event-ID": str(self.last_id)}
            with trio.move_on_after(self._random.uniform(0.5, 5)):
                try:
                    async with client.stream("GET", "/events", headers=headers) as response:
                        if response.status_code == 200:
                            await self._read(response)
                except httpx2.TransportError:
                    pass
            await trio.sleep(0.05)

    async def _read(self, response: httpx2.Response) -> None:
        number, kind = 0, ""
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            match name:
                case "id":
                    number = int(value)
                case "event":
                    kind = value
                case "data":
                    if kind == "reset" or number <= self.last_id:
                        self.events.broken.append(f"the event {kind} {number} follows {self.last_id}")
                    self.last_id = number
                    self.events.take(kind, json.loads(value))
                case _:
                    pass


def _of_database(location: Location, check: Callable[[Connection], Iterable[str]]) -> list[str]:
    """What a check finds in one state of the database."""
    with open_engine(location) as engine, engine.connect() as connection:
        if isinstance(location, PostgresqlLocation):
            connection.execution_options(isolation_level="REPEATABLE READ")
        return list(check(connection))


def _make_users(world: Cluster) -> GraphUsers:
    async def ask(
        random: Random, method: str, path: str, body: dict[str, Any] | None = None, *, key: str | None = None
    ) -> Reply | None:
        headers = {} if key is None else {"Idempotency-Key": key}
        response = await world.ask_once(random, method, path, json=body, headers=headers)
        return None if response is None else Reply(response.status_code, response.json())

    return GraphUsers(ask, lambda random: Documents(random, world.devices, 0.4, 0.2), 0.05)


async def _wait_begun(attempts: Attempts, more: int) -> None:
    """Wait until so many more attempts have begun."""
    wanted = attempts.begun.total() + more
    await until(lambda: attempts.begun.total() >= wanted)


async def _kill_again_and_again(
    world: Cluster, location: Location, users: GraphUsers, attempts: Attempts, random: Random
) -> None:
    """Kill a daemon at any moment, check what it has left, and start it again, often before another one has taken over."""
    for _ in range(KILLS_EACH):
        await _wait_begun(attempts, random.randrange(30))
        await trio.sleep(random.uniform(0, 0.1))
        number = random.randrange(len(world.daemons))
        await world.kill(number)
        left = await trio.to_thread.run_sync(_of_database, location, partial(inconsistencies, changed=users.changed))
        assert not left, (left, world.logs())
        if len(world.daemons) > 1:
            await trio.sleep(random.choice([0, 0, 0.5, 1.5]) * random.random() * LEASE)
        await world.start(number)


async def _wait_ended(world: Cluster, random: Random) -> float:
    """Wait until no graph runs, and return how many seconds it took."""
    began = trio.current_time()
    while (await world.ask(random, "GET", "/graphs", params={"state": "running", "limit": 1})).json()["graphs"]:  # noqa: ASYNC110
        await trio.sleep(0.1)
    return trio.current_time() - began


async def _wait_seen(location: Location, observers: list[Observer]) -> None:
    """Wait until the observers have seen the events of graphs that there are."""

    def newest(connection: Connection) -> Iterable[str]:
        yield str(connection.scalar(select(func.max(EVENTS.c.id)).where(EVENTS.c.kind == "graph")))

    [last] = await trio.to_thread.run_sync(_of_database, location, newest)
    while min(observer.last_id for observer in observers) < int(last):  # noqa: ASYNC110
        await trio.sleep(0.05)


@pytest.mark.parametrize("seed", range(KILLS // KILLS_EACH))
async def test_graphs_of_killed_daemons_are_never_half_advanced_or_stuck_and_no_attempt_begins_twice(
    seed: int, tmp_path: Path, database: Location
) -> None:
    random, ran = Random(seed), GraphRan()
    url, name, daemons = str(database), "", 1
    if isinstance(database, PostgresqlLocation):
        url, name, daemons = database.url, database.cluster, 2
    with trio.fail_after(10 * SECONDS):
        async with open_cluster(tmp_path, url, name, daemons=daemons, devices=DEVICES, ran=ran) as world:
            users, stopped = _make_users(world), trio.Event()
            observers = [Observer(world, Random(f"observer {seed} {number}")) for number in range(2)]
            async with trio.open_nursery() as watching:
                for observer in observers:
                    watching.start_soon(observer.follow)
                async with trio.open_nursery() as nursery:
                    for number in range(USERS):
                        user = Random(f"user {seed} {number}")
                        nursery.start_soon(users.be_user, number, user, 0.5 * daemons, stopped.is_set)
                    await _kill_again_and_again(world, database, users, ran.attempts, random)
                    stopped.set()
                took = await _wait_ended(world, random)
                await _wait_seen(database, observers)
                watching.cancel_scope.cancel()
            seen = [observer.events for observer in observers]
            check = partial(broken_graph_promises, users=users, attempts=ran.attempts, observers=seen)
            broken = await trio.to_thread.run_sync(_of_database, database, check)
    assert not broken, "\n".join([*broken, world.logs()])
    assert "Traceback" not in world.logs(), world.logs()
    states = Counter(str(event["state"]) for event in observers[0].events.latest.values())
    attempts = ran.attempts.begun.total()
    sys.stdout.write(
        f"seed {seed}: {dict(states)} with {attempts} attempts and {dict(users.counts)}, "
        f"ended {took:.1f} s after the last kill and request\n"
    )
