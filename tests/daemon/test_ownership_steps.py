"""Which devices a daemon takes, keeps and leaves to others, by what it reads in the database."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

from galaxy_trio import Constellation, DeviceConfig, open_constellation
from galaxy_trio.daemon.device_configs import devices_as_json
from galaxy_trio.daemon.directory import Directory
from galaxy_trio.daemon.ownership import Ownership
from galaxy_trio.daemon.store.fleet import Fleet
from galaxy_trio.daemon.store.lives import Life
from galaxy_trio.daemon.store.takeover import Takeover
from galaxy_trio.testing.memory_fleet import open_memory_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    import pytest
    from trio.testing import MockClock


LEASE = 30.0


class _Database:
    """A cluster's devices, owners and daemons in memory, in place of a store."""

    life = "this"
    lease = LEASE
    is_shared = True

    def __init__(self, *lives: str) -> None:
        self.lives = {name: Life(name, name, None, 0.0, 0.0, None) for name in ("this", *lives)}
        self.configs: dict[str, str] = {}
        self.owners: dict[str, tuple[str | None, int]] = {}

    async def read_fleet(self) -> Fleet:
        await trio.lowlevel.checkpoint()
        return Fleet(dict(self.lives), dict(self.configs), dict(self.owners), {})

    async def take_devices(self, life: str, candidates: Collection[str], limit: int) -> dict[str, int]:
        await trio.lowlevel.checkpoint()
        taken = sorted(candidates)[:limit]
        for name in taken:
            self.owners[name] = (life, self.owners.get(name, (None, 0))[1] + 1)
        return {name: self.owners[name][1] for name in taken}

    async def release_devices(self, life: str, names: Collection[str], forget: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()
        for name in names:
            assert self.owners[name][0] == life
            self.owners[name] = (None, self.owners[name][1] + 1)
        for name in forget:
            del self.owners[name]

    async def drain(self, lives: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()
        for life in lives:
            self.lives[life] = attrs.evolve(self.lives[life], draining=1.0)

    async def take_over(self) -> Takeover:
        await trio.lowlevel.checkpoint()
        return Takeover()

    @property
    def own(self) -> set[str]:
        """The devices that this daemon owns."""
        return {name for name, (owner, _) in self.owners.items() if owner == self.life}


class _TaskQueue:
    """A task queue that is notified."""

    def __init__(self) -> None:
        self.looked = 0

    def reconfiguring(self) -> Any:
        return trio.CancelScope()

    def look_for_free(self) -> None:
        self.looked += 1


@attrs.frozen
class _World:
    database: _Database
    ownership: Ownership
    constellation: Constellation
    directory: Directory


@asynccontextmanager
async def _open(database: _Database, *names: str, connected: bool = False) -> AsyncGenerator[_World]:
    async with (
        open_memory_fleet(*(names if connected else ())) as fleet,
        open_constellation([], connect=fleet.connect) as constellation,
    ):
        configs = fleet.configs if connected else [DeviceConfig(name, fleet.url) for name in names]
        database.configs = devices_as_json(configs)
        directory = Directory(constellation, "this")
        ownership = Ownership(
            cast("Any", database), constellation, directory, cast("Any", _TaskQueue()), None, lambda: 0.0
        )
        yield _World(database, ownership, constellation, directory)


async def test_daemon_takes_its_share_and_others_are_in_the_directory() -> None:
    async with _open(_Database("other"), "a", "b", "c") as world:
        await world.ownership.step()
        assert world.database.own == {"a", "b"}
        assert set(world.constellation.devices) == {"a", "b"}
        assert world.directory.epochs == {"a": 1, "b": 1}
        assert world.directory.owner_of("c") is None


async def test_devices_whose_taking_got_no_answer_are_its_own() -> None:
    async with _open(_Database(), "a") as world:
        world.database.owners["a"] = ("this", 7)
        await world.ownership.step()
        assert set(world.constellation.devices) == {"a"}
        assert world.directory.epochs == {"a": 7}


async def test_devices_that_another_daemon_has_taken_over_are_not_connected_any_more() -> None:
    async with _open(_Database("other"), "a", "b") as world:
        world.database.owners = {"a": ("this", 1), "b": ("other", 1)}
        await world.ownership.step()
        world.database.owners["a"] = ("other", 2)
        await world.ownership.step()
        assert not world.constellation.devices
        assert world.directory.owner_of("a") == "other"


async def test_removed_device_is_released_and_forgotten() -> None:
    async with _open(_Database(), "a", "b") as world:
        await world.ownership.step()
        del world.database.configs["b"]
        await world.ownership.step()
        assert set(world.constellation.devices) == {"a"}
        assert world.database.owners == {"a": ("this", 1)}


async def test_unreachable_device_is_left_to_another_daemon_for_ten_minutes_or_until_all_leave_it(
    mock_clock: MockClock,
) -> None:
    database = _Database("other")
    async with _open(database, "a") as world:
        for _ in range(2):
            await world.ownership.step()
        assert database.own == {"a"}
        mock_clock.jump(2 * LEASE)
        await world.ownership.step()
        assert database.own == {"a"}
        mock_clock.jump(1)
        await world.ownership.step()
        # It could not be connected for more than two leases.
        assert database.owners == {"a": (None, 2)}
        assert not world.constellation.devices
        await world.ownership.step()
        assert not database.own
        # The other one takes it, and gives it up after a while.
        database.owners["a"] = ("other", 3)
        mock_clock.jump(300)
        await world.ownership.step()
        database.owners["a"] = (None, 4)
        await world.ownership.step()
        assert not database.own
        # No daemon takes it: it must not stay without an owner.
        mock_clock.jump(2 * LEASE + 1)
        await world.ownership.step()
        assert database.own == {"a"}


async def test_unreachable_device_of_the_only_daemon_stays_its_own(mock_clock: MockClock) -> None:
    async with _open(_Database(), "a") as world:
        await world.ownership.step()
        for _ in range(5):
            mock_clock.jump(LEASE)
            await world.ownership.step()
        assert world.database.own == {"a"}


async def test_connected_device_is_kept_and_after_ten_minutes_a_left_one_is_taken_again(mock_clock: MockClock) -> None:
    database = _Database("other")
    async with _open(database, "a", connected=True) as world:
        await world.ownership.step()
        await world.constellation.wait_connected()
        for _ in range(5):
            mock_clock.jump(LEASE)
            await world.ownership.step()
        assert database.own == {"a"}


async def test_only_idle_devices_are_given_to_a_daemon_that_joins() -> None:
    database = _Database()
    async with _open(database, "a", "b", "c", "d", connected=True) as world:
        await world.ownership.step()
        await world.constellation.wait_connected()
        database.lives["other"] = Life("other", "other", None, 0.0, 0.0, None)
        async with world.constellation.devices["a"].reserve(), world.constellation.devices["b"].reserve():
            async with world.constellation.devices["c"].reserve():
                await world.ownership.step()
                # One of two is idle.
                assert database.own == {"a", "b", "c"}
            await world.ownership.step()
            assert database.own == {"a", "b"}


async def test_draining_daemon_releases_its_devices_and_the_database_knows_it() -> None:
    database = _Database("other")
    async with _open(database, "a", "b") as world:
        await world.ownership.step()
        world.ownership.drain()
        await world.ownership.step()
        assert not database.own
        assert database.lives["this"].draining is not None


async def test_devices_of_a_newer_version_are_reported_once_and_read_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with _open(_Database(), "a") as world:
        good = dict(world.database.configs)
        world.database.configs["a"] = '{"device_id": "a", "server_url": "ws://x/", "colour": "red"}'
        with trio.move_on_after(3 * LEASE):
            await world.ownership.run()
        assert caplog.text.count("the devices in the database were stored by a newer galaxy_trio") == 1
        world.database.configs = good
        with trio.move_on_after(LEASE):
            await world.ownership.run()
        assert world.database.own == {"a"}
