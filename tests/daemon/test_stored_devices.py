"""The devices of a cluster in the database, and their states as their owners report them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from galaxy_trio.daemon.store import devices
from galaxy_trio.daemon.store.devices import read_devices, read_states
from galaxy_trio.daemon.store.events import CLUSTER
from galaxy_trio.daemon.store.schema import DEVICE_STATES
from galaxy_trio.daemon.store.store import Store, open_store
from tests.daemon.support.store import NOW

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation

pytestmark = pytest.mark.daemon


async def _kinds_since(store: Store, after: int) -> list[str]:
    return [event.kind for event in (await store.events_after(after)).events]


async def test_devices_of_a_file_seed_an_empty_database_and_no_other(database: Location) -> None:
    async with open_store(database) as store:
        assert await store.read(read_devices) == {}
        assert await store.seed_devices({}) == {}
        assert await store.seed_devices({"b": "{}", "a": '{"url": "ä\\u0000"}'}) == {
            "a": '{"url": "ä\\u0000"}',
            "b": "{}",
        }
        assert await store.seed_devices({"c": "{}"}) == {"a": '{"url": "ä\\u0000"}', "b": "{}"}
    async with open_store(database) as store:
        assert list((await store.read(read_devices)).items()) == [("a", '{"url": "ä\\u0000"}'), ("b", "{}")]


async def test_daemons_that_seed_a_database_at_the_same_time_with_the_same_file_add_its_devices_once(
    location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def see_none(_connection: Connection) -> dict[str, str]:
        return {}

    async with open_store(location) as first, open_store(location) as second:
        await first.seed_devices({"a": "{}", "b": "{}"})
        with monkeypatch.context() as patch:
            # Another daemon added them after this one had looked for devices.
            patch.setattr(devices, "read_devices", see_none)
            await second.seed_devices({"a": "{}", "b": "{}"})
        assert await second.read(read_devices) == {"a": "{}", "b": "{}"}


async def test_replaced_devices_are_exactly_the_new_ones_and_their_states_go_with_those_that_are_gone(
    database: Location,
) -> None:
    async with open_store(database) as store:
        await store.seed_devices({"a": "1", "b": "2"})
        await store.take_devices(store.life, ["a", "b"], 2)
        await store.report(store.life, {"a": "A", "b": "B"})
        last = (await store.event_bounds())[1]
        assert await store.replace_devices({"b": "3", "c": "4"}) == {"a": "1", "b": "2"}
        fleet = await store.read_fleet()
        assert (fleet.configs, fleet.states) == ({"b": "3", "c": "4"}, {"b": "B"})
        assert await _kinds_since(store, last) == [CLUSTER]
        assert await store.replace_devices({}) == {"b": "3", "c": "4"}
        assert (await store.read_fleet()).configs == {}


async def test_state_of_a_device_is_stored_by_its_owner_alone(database: Location) -> None:
    now = NOW

    def clock() -> datetime:
        return now

    async with open_store(database, clock=clock) as store:
        await store.take_devices(store.life, ["mine"], 1)
        await store.take_devices(store.life, ["former"], 1)
        await store.release_devices(store.life, ["former"], ())
        states = {"mine": "ready", "former": "ready", "unknown": "ready"}
        await store.report(store.life, states)
        assert await store.read(read_states) == {"mine": "ready"}
        now = NOW.replace(year=2027)
        await store.report(store.life, {"mine": "busy"})
        assert await store.read(read_states) == {"mine": "busy"}
        changed = select(DEVICE_STATES.c.changed)
        assert await store.read(lambda connection: connection.execute(changed).scalar()) == now.timestamp()
        await store.report("another life", {"mine": "away"})
        assert await store.read(read_states) == {"mine": "busy"}


async def test_events_of_devices_are_published_with_their_states_also_those_of_devices_that_are_not_owned(
    database: Location,
) -> None:
    def fail(transaction: Transaction) -> None:
        devices.report(transaction, store.life, {"mine": "busy"}, [("status", {"number": 3})])
        raise RuntimeError("it fails")

    async with open_store(database) as store:
        await store.take_devices(store.life, ["mine"], 1)
        last = (await store.event_bounds())[1]
        await store.report(
            store.life, {"mine": "ready", "other": "ready"}, [("status", {"number": number}) for number in (1, 2)]
        )
        with pytest.raises(RuntimeError):
            await store.write(fail)
        published = (await store.events_after(last)).events
        assert [(event.kind, json.loads(event.data)) for event in published] == [
            ("status", {"number": number}) for number in (1, 2)
        ]
        assert await store.read(read_states) == {"mine": "ready"}
