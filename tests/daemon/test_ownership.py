"""The owners of devices and their epochs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.lives import begin_life
from galaxy_trio.daemon.store.ownership import (
    ensure_devices,
    fair_share,
    forget_devices,
    owners,
    owns,
    release_devices,
    take_devices,
)
from galaxy_trio.daemon.store.takeover import end_life, take_over
from tests.daemon.support.lives import LEASE, new_engine, open_engine, transaction_on, wait_until_blocked

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Engine

    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation

pytestmark = pytest.mark.daemon

_DEVICES = ["d1", "d2", "d3"]


def _prepare(engine: Engine) -> None:
    """Begin the lives a and b, and add three devices."""
    with engine.begin() as connection:
        for life in "ab":
            begin_life(transaction_on(connection), life, life, None, LEASE)
        ensure_devices(transaction_on(connection), _DEVICES)


@pytest.fixture
def engine(database: Location) -> Generator[Engine]:
    with new_engine(database) as engine:
        _prepare(engine)
        yield engine


@pytest.mark.parametrize(
    ("devices", "daemons", "share"), [(0, 1, 0), (1, 1, 1), (10, 3, 4), (9, 3, 3), (1, 5, 1), (7, 0, 7)]
)
def test_fair_shares_are_rounded_up_so_that_each_device_has_an_owner(devices: int, daemons: int, share: int) -> None:
    assert fair_share(devices, daemons) == share


def test_device_has_one_owner_and_each_change_adds_one_to_its_epoch(engine: Engine) -> None:
    with engine.begin() as connection:
        assert owners(connection) == dict.fromkeys(_DEVICES, (None, 0))
        assert take_devices(transaction_on(connection), "a", _DEVICES, 2) == {"d1": 1, "d2": 1}
        assert take_devices(transaction_on(connection), "b", _DEVICES, 9) == {"d3": 1}
        assert take_devices(transaction_on(connection), "b", _DEVICES, 9) == {}
        assert owners(connection) == {"d1": ("a", 1), "d2": ("a", 1), "d3": ("b", 1)}
        assert release_devices(transaction_on(connection), "a", ["d3", "d2", "unknown"]) == ["d2"]
        assert owners(connection) == {"d1": ("a", 1), "d2": (None, 2), "d3": ("b", 1)}
        assert take_devices(transaction_on(connection), "b", ["d2"], 1) == {"d2": 3}


def test_only_candidates_are_taken_and_no_more_than_the_limit(engine: Engine) -> None:
    with engine.begin() as connection:
        for limit in (0, -1):
            assert take_devices(transaction_on(connection), "a", _DEVICES, limit) == {}
        assert take_devices(transaction_on(connection), "a", [], 9) == {}
        assert take_devices(transaction_on(connection), "a", ["d3", "unknown"], 9) == {"d3": 1}


def test_owner_is_known_by_its_life_and_its_epoch(engine: Engine) -> None:
    with engine.begin() as connection:
        take_devices(transaction_on(connection), "a", ["d1"], 1)
        assert owns(connection, "a", "d1", 1)
        for life, device, epoch in (("b", "d1", 1), ("a", "d1", 0), ("a", "d1", 2), ("a", "d2", 1), ("a", "d9", 1)):
            assert not owns(connection, life, device, epoch)
        release_devices(transaction_on(connection), "a", ["d1"])
        take_devices(transaction_on(connection), "a", ["d1"], 1)
        assert not owns(connection, "a", "d1", 1)
        assert owns(connection, "a", "d1", 3)


def test_dead_life_takes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        end_life(transaction_on(connection), "a")
        with pytest.raises(LifeOver):
            take_devices(transaction_on(connection), "a", _DEVICES, 9)
        assert owners(connection) == dict.fromkeys(_DEVICES, (None, 0))


def test_added_devices_leave_the_others_alone_and_removed_ones_have_no_owner(engine: Engine) -> None:
    with engine.begin() as connection:
        take_devices(transaction_on(connection), "a", ["d1", "d2"], 2)
        ensure_devices(transaction_on(connection), [*_DEVICES, "d4"])
        ensure_devices(transaction_on(connection), [])
        forget_devices(transaction_on(connection), ["d2", "d3", "unknown"])
        assert owners(connection) == {"d1": ("a", 1), "d4": (None, 0)}
        assert not owns(connection, "a", "d2", 1)
        assert release_devices(transaction_on(connection), "a", ["d2"]) == []


def test_two_lives_that_take_at_the_same_time_get_different_devices_without_waiting(
    location: PostgresqlLocation,
) -> None:
    with new_engine(location) as engine, open_engine(location) as other:
        _prepare(engine)
        with engine.begin() as first, other.begin() as second:
            assert take_devices(transaction_on(first), "a", _DEVICES, 2) == {"d1": 1, "d2": 1}
            assert take_devices(transaction_on(second), "b", _DEVICES, 2) == {"d3": 1}
        with engine.begin() as connection:
            assert owners(connection) == {"d1": ("a", 1), "d2": ("a", 1), "d3": ("b", 1)}


def test_life_that_takes_a_device_cannot_die_until_that_is_on_disk(location: PostgresqlLocation) -> None:
    with new_engine(location) as engine, open_engine(location) as other, ThreadPoolExecutor() as threads:
        _prepare(engine)
        with engine.begin() as connection:
            begin_life(transaction_on(connection), "c", "c", None, 0)
        with engine.begin() as taking:
            take_devices(transaction_on(taking), "c", ["d1"], 1)
            with other.begin() as connection:
                assert take_over(transaction_on(connection), "a").lives == ()
        with other.begin() as dying:
            assert take_over(transaction_on(dying), "a").devices == ("d1",)
            # It waits for the death, and sees it then.
            taken = threads.submit(_take, engine, "c")
            wait_until_blocked(other)
        with pytest.raises(LifeOver):
            taken.result()
        with engine.begin() as connection:
            assert owners(connection)["d1"] == (None, 2)


def _take(engine: Engine, life: str) -> dict[str, int]:
    with engine.begin() as connection:
        return take_devices(transaction_on(connection), life, _DEVICES, 9)
