"""What the daemons of a cluster share: which of them live, which own which device, and which tasks an owner may begin."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.events import CLUSTER
from galaxy_trio.daemon.store.fleet import NotOwner
from galaxy_trio.daemon.store.lives import begin_life
from galaxy_trio.daemon.store.queries import WrongState
from galaxy_trio.daemon.store.records import TaskRequest, TaskState
from galaxy_trio.daemon.store.schema import DAEMONS
from galaxy_trio.daemon.store.store import Store, open_store
from tests.daemon.support.events import read_all
from tests.daemon.support.store import ATTEMPT, add_task, kill

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation

pytestmark = pytest.mark.daemon

ANOTHER = "another life"


async def _begin_another_life(store: Store) -> None:
    await store.write(partial(begin_life, life=ANOTHER, name="south", url=None, lease=store.lease))


async def _cluster_events(store: Store, after: int) -> int:
    """How many events after an id say that daemons, devices or owners have changed."""
    return [event.kind for event in (await store.events_after(after)).events].count(CLUSTER)


async def _newest(store: Store) -> int:
    return (await store.event_bounds())[1]


async def test_task_begins_on_a_device_of_its_life_in_the_current_epoch_alone(database: Location) -> None:
    async with open_store(database) as store:
        task = await add_task(store)
        begin = partial(store.begin, task.id, "d1", ATTEMPT)
        with pytest.raises(NotOwner, match="does not own the device 'd1' any more"):
            await begin(store.life, 1)
        epoch = (await store.take_devices(store.life, ["d1"], 1))["d1"]
        for life, wrong in ((store.life, None), (store.life, epoch - 1), (store.life, epoch + 1), (ANOTHER, epoch)):
            with pytest.raises(NotOwner):
                await begin(life, wrong)
        # It may own the device again, which others may have had in between.
        await store.release_devices(store.life, ["d1"], ())
        later = (await store.take_devices(store.life, ["d1"], 1))["d1"]
        assert later > epoch
        with pytest.raises(NotOwner):
            await begin(store.life, epoch)
        assert (await store.existing(task.id)).state is TaskState.QUEUED
        running = await begin(store.life, later)
        assert (running.state, running.device) == (TaskState.RUNNING, "d1")
        assert await begin(store.life, later) == running


async def test_owner_begins_no_task_that_another_life_has_claimed(database: Location) -> None:
    async with open_store(database) as store:
        [epoch] = (await store.take_devices(store.life, ["d1"], 1)).values()
        task, _ = await store.add(TaskRequest("echo"), claimed_by=ANOTHER)
        with pytest.raises(WrongState, match="is queued"):
            await store.begin(task.id, "d1", ATTEMPT, store.life, epoch)


async def test_devices_are_taken_once_up_to_a_limit_and_released_by_their_owner_alone(database: Location) -> None:
    async with open_store(database) as store:
        await _begin_another_life(store)
        names = ["d1", "d2", "d3"]
        assert list(await store.take_devices(store.life, names, 2)) == ["d1", "d2"]
        assert list(await store.take_devices(ANOTHER, names, 3)) == ["d3"]
        last = await _newest(store)
        assert await store.take_devices(store.life, names, 3) == {}
        assert await _cluster_events(store, last) == 0
        await store.release_devices(store.life, ["d1", "d3"], ())
        assert await _cluster_events(store, last) == 1
        owners = {name: owner for name, (owner, _) in (await store.read_fleet()).owners.items()}
        assert owners == {"d1": None, "d2": store.life, "d3": ANOTHER}
        await store.take_devices(store.life, ["d1"], 1)
        assert await _cluster_events(store, last) == 2


async def test_removed_device_is_forgotten_when_it_is_released(database: Location) -> None:
    async with open_store(database) as store:
        await store.take_devices(store.life, ["d1", "d2", "d3"], 3)
        await store.release_devices(store.life, ["d1", "d2"], ["d2"])
        assert {name: owner for name, (owner, _) in (await store.read_fleet()).owners.items()} == {
            "d1": None,
            "d3": store.life,
        }


async def test_fleet_names_the_living_owner_of_a_device_alone(database: Location) -> None:
    async with open_store(database, name="north", url="http://north") as store:
        await _begin_another_life(store)
        await store.take_devices(store.life, ["d1"], 1)
        await store.take_devices(ANOTHER, ["d2"], 1)
        await store.take_devices(store.life, ["d3"], 1)
        await store.release_devices(store.life, ["d3"], ())
        fleet = await store.read_fleet()
        assert {life.name: life.url for life in fleet.lives.values()} == {"north": "http://north", "south": None}
        assert [fleet.owner_name(name) for name in ("d1", "d2", "d3", "d4")] == ["north", "south", None, None]
        died = update(DAEMONS).where(DAEMONS.c.id == ANOTHER).values(died=1.0)
        await store.write(lambda transaction: transaction.connection.execute(died))
        fleet = await store.read_fleet()
        assert list(fleet.lives) == [store.life]
        assert fleet.owner_name("d2") is None


async def test_daemons_are_shown_with_their_devices_and_running_tasks_also_after_their_end(database: Location) -> None:
    async with open_store(database, name="north") as store:
        await store.take_devices(store.life, ["d1", "d2"], 2)
        await add_task(store)
        for _ in range(2):
            task = await add_task(store)
            await store.mark_running(task.id, "d1", ATTEMPT, store.life)
        states = await store.read_daemons()
        [daemon] = states.daemons
        assert (daemon.life.name, daemon.life.id, daemon.devices, daemon.running) == ("north", store.life, 2, 2)
        assert daemon.life.started <= states.now < daemon.life.expires
    async with open_store(database, name="south") as store:
        living, dead = (await store.read_daemons()).daemons
        assert (living.life.name, living.life.died) == ("south", None)
        assert (dead.life.name, dead.devices, dead.running) == ("north", 0, 0)
        assert dead.life.died is not None


async def test_daemon_that_was_killed_leaves_its_devices_and_tasks_to_the_next_one(database: Location) -> None:
    async with open_store(database, name="north") as store:
        await store.take_devices(store.life, ["d1"], 1)
        running, queued = await add_task(store), await add_task(store)
        await store.mark_running(running.id, "d1", ATTEMPT, store.life)
        last = await _newest(store)
        await kill(store)
    async with open_store(database, name="south") as store:
        assert store.lost_at_start == 1
        lost = await store.existing(running.id)
        assert (lost.state, lost.error) == (
            TaskState.LOST,
            "the daemon north ended or lost its lease while the task ran: it may have run",
        )
        assert await store.claim(queued.asked.requirement, store.life, 10) == [queued]
        assert list(await store.take_devices(store.life, ["d1"], 1)) == ["d1"]
        assert '"state":"lost"' in (await read_all(store, last))[-1].data


async def test_daemons_with_a_lease_are_left_alone_by_one_that_starts(location: PostgresqlLocation) -> None:
    async with open_store(location) as first:
        await first.take_devices(first.life, ["d1"], 1)
        task = await add_task(first)
        await first.mark_running(task.id, "d1", ATTEMPT, first.life)
        async with open_store(location) as second:
            assert second.lost_at_start == 0
            assert (await second.take_over()).lives == ()
            assert await second.take_devices(second.life, ["d1"], 1) == {}
        assert (await first.existing(task.id)).state is TaskState.RUNNING


async def test_more_dead_daemons_than_fit_in_a_transaction_are_all_taken_over_at_the_start(database: Location) -> None:
    async with open_store(database) as store:
        for number in range(25):
            life = f"life {number}"
            await store.write(partial(begin_life, life=life, name=f"daemon {number}", url=None, lease=-1.0))
            task, _ = await store.add(TaskRequest("echo"), claimed_by=life)
            await store.mark_running(task.id, "d1", ATTEMPT, life)
    async with open_store(database) as store:
        assert store.lost_at_start == 25
        assert (await store.counts())[TaskState.LOST] == 25


async def _add(store: Store) -> object:
    return await store.add(TaskRequest("echo"))


async def _claim(store: Store) -> object:
    return await store.claim(TaskRequest("echo").requirement, store.life, 10)


async def _take(store: Store) -> object:
    return await store.take_devices(store.life, ["d1"], 1)


@pytest.mark.parametrize("take", [_add, _claim, _take])
async def test_life_that_is_over_takes_nothing_any_more(
    database: Location, take: Callable[[Store], Awaitable[object]]
) -> None:
    async with open_store(database) as store:
        await take(store)
        await store.end_life()
        with pytest.raises(LifeOver, match="has lost its lease, and starts again"):
            await take(store)


async def test_life_that_is_over_retries_no_task_and_can_still_read_and_write_ends(database: Location) -> None:
    async with open_store(database) as store:
        ended, other = await add_task(store), await add_task(store)
        await store.cancel_queued(ended.id)
        await store.end_life()
        with pytest.raises(LifeOver):
            await store.retry(ended.id)
        # The task is free: any daemon may cancel it for a client.
        assert (await store.cancel_queued(other.id))[1]
        assert len(await store.page()) == 2
