"""Deliberate breakages of a cluster's rules, one at a time, which the simulation must find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from unittest import mock

import attrs
import trio
from sqlalchemy import bindparam, false, update

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.daemon import lease, ownership
from galaxy_trio.daemon.event_feed import EventFeed
from galaxy_trio.daemon.ownership import Ownership
from galaxy_trio.daemon.reload import apply_devices
from galaxy_trio.daemon.reports import Reports
from galaxy_trio.daemon.store import events, statements, takeover
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.records import TaskRecord, TaskState
from galaxy_trio.daemon.store.schema import OWNERSHIP, TASKS
from galaxy_trio.daemon.store.store import Store
from tests.simulation.patching import Mutation, both

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import ColumnElement

    from galaxy_trio import Constellation, DeviceConfig
    from galaxy_trio.daemon.reload import Changes
    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.events import StoredEvent
    from galaxy_trio.daemon.store.fleet import Fleet


def let_a_lease_never_end() -> AbstractContextManager[object]:
    """A daemon that cannot renew its lease goes on with its connections."""
    return mock.patch.object(lease._Keeper, "_set_deadline", return_value=None)


def give_up_at_the_first_failure() -> AbstractContextManager[object]:
    """A daemon's life is over as soon as its lease cannot be renewed once."""

    async def renew_once(self: lease._Keeper) -> bool:
        try:
            return await self.renew_once()
        except StoreError:
            return False

    return mock.patch.object(lease._Keeper, "_renew_with_repetitions", renew_once)


def never_take_over() -> AbstractContextManager[object]:
    """No daemon looks for those that have died."""

    async def do_nothing(_: Ownership) -> None:
        await trio.lowlevel.checkpoint()

    return mock.patch.object(Ownership, "_take_over", do_nothing)


def leave_the_tasks_of_the_dead() -> AbstractContextManager[object]:
    """The running tasks of a dead daemon go on for ever."""
    return mock.patch.object(takeover, "_lose", return_value=[])


def leave_the_claims_of_the_dead() -> AbstractContextManager[object]:
    """The tasks that a dead daemon has claimed are never free."""
    return mock.patch.object(takeover, "IS_QUEUED", false())


def leave_the_devices_of_the_dead() -> AbstractContextManager[object]:
    """The devices of a dead daemon stay its own."""
    end = takeover._end

    def end_without(transaction: Transaction, condition: ColumnElement[bool], **more: bool) -> takeover.Takeover:
        found = end(transaction, condition, **more)
        for life in found.lives:
            transaction.connection.execute(
                update(OWNERSHIP).where(OWNERSHIP.c.device.in_(found.devices)).values(owner=life)
            )
        return found

    return mock.patch.object(takeover, "_end", end_without)


def queue_lost_tasks_again() -> AbstractContextManager[object]:
    """The running tasks of a dead daemon are queued again."""

    def requeue(transaction: Transaction, condition: ColumnElement[bool], reason: str) -> list[TaskRecord]:
        del reason
        again = {"state": "queued", "device": None, "started": None, "attempt": None, "claimed_by": None}
        transaction.connection.execute(update(TASKS).where(TASKS.c.state == "running", condition).values(again))
        return []

    return mock.patch.object(takeover, "_lose", requeue)


def begin_without_the_disk() -> AbstractContextManager[object]:
    """A task is sent before it is written that it runs; that is written when it ends."""

    async def begin(self: Store, task_id: str, device: str, attempt: str, life: str, epoch: int | None) -> TaskRecord:
        del attempt, life, epoch
        record = await self.existing(task_id)
        return attrs.evolve(record, state=TaskState.RUNNING, device=device, started=wall_clock.now())

    return mock.patch.object(Store, "begin", begin)


def write_any_end() -> AbstractContextManager[object]:
    """The end of a task is written also if it has ended before."""
    finish = statements.FINISH
    anyone = update(TASKS).where(TASKS.c.id == bindparam("task_id")).values(dict(finish._values or {}))
    return mock.patch.object(statements, "FINISH", anyone.returning(*statements.RECORD))


def keep_more_than_the_share() -> AbstractContextManager[object]:
    """A daemon gives nothing to one that joins."""

    def share(_: Ownership, fleet: object, configs: Mapping[str, object]) -> int:
        del fleet
        return len(configs)

    return mock.patch.object(Ownership, "_share", share)


def hand_busy_devices_over() -> AbstractContextManager[object]:
    """A daemon gives devices away that run tasks, and stops these."""
    kept = Ownership._kept

    def keep(self: Ownership, fleet: Fleet, configs: Mapping[str, DeviceConfig], owned: Collection[str]) -> set[str]:
        keeps = kept(self, fleet, configs, owned)
        surplus = max(0, len(keeps) - self._share(fleet, configs)) if len(fleet.lives) > 1 else 0
        return keeps - set(sorted(keeps)[:surplus])

    async def apply(constellation: Constellation, devices: Sequence[DeviceConfig], drain: float) -> Changes:
        del drain
        return await apply_devices(constellation, devices, 0)

    return both(mock.patch.object(Ownership, "_kept", keep), mock.patch.object(ownership, "apply_devices", apply))


def hear_nothing_of_others() -> AbstractContextManager[object]:
    """What other daemons write is not counted."""
    return mock.patch.object(Reports, "take", return_value=None)


def hear_no_cancellations() -> AbstractContextManager[object]:
    """A daemon does not cancel what another one was asked to."""
    take = Reports.take

    def take_others(self: Reports, kind: str, data: Mapping[str, object]) -> None:
        if kind != events.CANCEL:
            take(self, kind, data)

    return mock.patch.object(Reports, "take", take_others)


def skip_events() -> AbstractContextManager[object]:
    """Of events that are read together, the last one is passed over."""
    add = EventFeed._add

    def add_without(self: EventFeed, found: Sequence[StoredEvent]) -> None:
        add(self, found[:-1] if len(found) > 2 else found)
        if found:
            self._last = found[-1].id

    return mock.patch.object(EventFeed, "_add", add_without)


CLUSTER_MUTATIONS: Final[dict[Mutation, int]] = {
    let_a_lease_never_end: 6,
    give_up_at_the_first_failure: 12,
    never_take_over: 2,
    leave_the_tasks_of_the_dead: 6,
    leave_the_claims_of_the_dead: 6,
    leave_the_devices_of_the_dead: 2,
    queue_lost_tasks_again: 6,
    begin_without_the_disk: 0,
    write_any_end: 6,
    keep_more_than_the_share: 2,
    hand_busy_devices_over: 0,
    hear_nothing_of_others: 0,
    hear_no_cancellations: 0,
    skip_events: 0,
}
"""The breakages, each with a seed that finds it, which is tried first."""
