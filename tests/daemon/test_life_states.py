"""Random sequences of what several lives do on one database with a virtual clock, compared with a model of dictionaries."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.lives import begin_life, read_lives, renew_life, require_alive
from galaxy_trio.daemon.store.ownership import (
    ensure_devices,
    fair_share,
    owners,
    owns,
    release_devices,
    take_devices,
)
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.takeover import end_life, take_over
from tests.daemon.support.lives import (
    LEASE,
    NOW,
    add_claimed,
    begin_task,
    claim_task,
    end_task,
    new_engine,
    read_task,
    transaction_on,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.takeover import Takeover

pytestmark = pytest.mark.daemon

_DEVICES = ("d1", "d2", "d3")
_TASKS = ("t1", "t2", "t3", "t4")
_PICK = st.integers(0, 10_000)


@attrs.define
class _Life:
    """A life of the model."""

    expires: datetime
    alive: bool = True
    # What it knows, which may be long out of date: the epochs of devices that it took, and of tasks that it began.
    epochs: dict[str, int] = attrs.field(factory=dict[str, int])
    begun: dict[str, int] = attrs.field(factory=dict[str, int])


@attrs.define
class _Task:
    """A task of the model."""

    state: TaskState = TaskState.QUEUED
    claimed_by: str | None = None


class LifeStates(RuleBasedStateMachine):
    """A database, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._engine = self._stack.enter_context(new_engine(Path(folder) / "db"))
        self._now = NOW
        self._lives: dict[str, _Life] = {}
        self._owners: dict[str, str | None] = dict.fromkeys(_DEVICES)
        self._epochs: dict[str, int] = dict.fromkeys(_DEVICES, 0)
        self._tasks = {name: _Task() for name in _TASKS}
        with self._engine.begin() as connection:
            ensure_devices(self._transaction(connection), _DEVICES)
            for name in _TASKS:
                add_claimed(connection, name, None)

    def teardown(self) -> None:
        self._stack.close()

    def _transaction(self, connection: Connection) -> Transaction:
        return transaction_on(connection, self._now)

    def _pick(self, pick: int) -> tuple[str, _Life]:
        return list(self._lives.items())[pick % len(self._lives)]

    def _own(self, device: str, life: str | None) -> None:
        """Change the owner in the model."""
        self._owners[device] = life
        self._epochs[device] += 1

    @rule()
    def begin(self) -> None:
        name = f"life {len(self._lives)}"
        with self._engine.begin() as connection:
            begin_life(self._transaction(connection), name, name, None, LEASE)
        self._lives[name] = _Life(self._now + timedelta(seconds=LEASE))

    @rule(seconds=st.sampled_from([1, 10, LEASE, LEASE + 1]))
    def wait(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK)
    def renew(self, pick: int) -> None:
        name, life = self._pick(pick)
        with self._engine.begin() as connection:
            assert renew_life(connection, name, LEASE, self._now) == life.alive
        if life.alive:
            life.expires = self._now + timedelta(seconds=LEASE)

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK, share=st.booleans(), candidates=st.sets(st.sampled_from(_DEVICES)))
    def take(self, pick: int, share: bool, candidates: set[str]) -> None:
        name, life = self._pick(pick)
        living = sum(each.alive for each in self._lives.values())
        limit = fair_share(len(_DEVICES), living) if share else len(_DEVICES)
        expected = [device for device in sorted(candidates) if self._owners[device] is None][:limit]
        with self._engine.begin() as connection:
            try:
                taken = take_devices(self._transaction(connection), name, candidates, limit)
            except LifeOver:
                assert not life.alive
                return
        assert life.alive
        for device in expected:
            self._own(device, name)
        assert taken == {device: self._epochs[device] for device in expected}
        life.epochs |= taken

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK, names=st.sets(st.sampled_from(_DEVICES)))
    def release(self, pick: int, names: set[str]) -> None:
        name, _ = self._pick(pick)
        expected = [device for device in sorted(names) if self._owners[device] == name]
        with self._engine.begin() as connection:
            assert release_devices(self._transaction(connection), name, names) == expected
        for device in expected:
            self._own(device, None)

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK, task=st.sampled_from(_TASKS))
    def claim(self, pick: int, task: str) -> None:
        name, life = self._pick(pick)
        known = self._tasks[task]
        with self._engine.begin() as connection:
            try:
                require_alive(self._transaction(connection), name)
            except LifeOver:
                assert not life.alive
                return
            is_free = known.state is TaskState.QUEUED and known.claimed_by is None
            assert claim_task(connection, task, name) == is_free
        if is_free:
            known.claimed_by = name

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK, task=st.sampled_from(_TASKS), device=st.sampled_from(_DEVICES))
    def begin_a_task(self, pick: int, task: str, device: str) -> None:
        name, life = self._pick(pick)
        known, epoch = self._tasks[task], life.epochs.get(device, 0)
        if known == _Task(TaskState.RUNNING, name):
            # The same attempt would be begun again, which changes nothing.
            return
        owning = self._owners[device] == name and self._epochs[device] == epoch
        with self._engine.begin() as connection:
            assert owns(connection, name, device, epoch) == owning
            allowed = owning and known == _Task(TaskState.QUEUED, name)
            assert begin_task(connection, task, name, device, epoch) == allowed
        if allowed:
            assert life.alive
            known.state = TaskState.RUNNING
            life.begun[task] = epoch

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK, task=st.sampled_from(_TASKS))
    def end_a_task(self, pick: int, task: str) -> None:
        name, life = self._pick(pick)
        known = self._tasks[task]
        # A life that is over does not know it, and ends what it began.
        allowed = known == _Task(TaskState.RUNNING, name) and task in life.begun
        with self._engine.begin() as connection:
            assert end_task(connection, task, name, life.begun.get(task, 0)) == allowed
        if allowed:
            assert life.alive
            self._tasks[task] = _Task(TaskState.COMPLETED)

    def _die(self, names: list[str], change: Takeover) -> None:
        """Apply deaths to the model, and compare what they changed."""
        assert list(change.lives) == names
        freed = [device for device in _DEVICES if self._owners[device] in names]
        assert list(change.devices) == freed
        for device in freed:
            self._own(device, None)
        lost = {
            task
            for task, known in self._tasks.items()
            if known.state is TaskState.RUNNING and known.claimed_by in names
        }
        assert {record.id for record in change.lost} == lost
        for task, known in self._tasks.items():
            if known.claimed_by in names:
                known.claimed_by = None
                known.state = TaskState.LOST if task in lost else known.state
        for name in names:
            self._lives[name].alive = False

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK)
    def end(self, pick: int) -> None:
        name, life = self._pick(pick)
        with self._engine.begin() as connection:
            self._die([name] if life.alive else [], end_life(self._transaction(connection), name))

    @precondition(lambda self: self._lives)
    @rule(pick=_PICK, all_others=st.booleans())
    def take_over(self, pick: int, all_others: bool) -> None:
        name, _ = self._pick(pick)
        dead = sorted(
            other
            for other, life in self._lives.items()
            if life.alive and other != name and (all_others or life.expires < self._now)
        )[:10]
        with self._engine.begin() as connection:
            self._die(dead, take_over(self._transaction(connection), name, all_others=all_others))
        if all_others:
            running = [task for task in self._tasks.values() if task.state is TaskState.RUNNING]
            assert len(dead) == 10 or all(task.claimed_by == name for task in running)

    @invariant()
    def compare(self) -> None:
        with self._engine.begin() as connection:
            found = owners(connection)
            tasks = {name: read_task(connection, name) for name in _TASKS}
            lives = {life.id: life for life in read_lives(connection)}
        assert found == {device: (self._owners[device], self._epochs[device]) for device in _DEVICES}
        assert {name: _Task(task.state, task.claimed_by) for name, task in tasks.items()} == self._tasks
        # Dead lives are deleted after a day.
        assert all(lives[name].died is None for name, life in self._lives.items() if life.alive)
        assert not any(life.died is None and not self._lives[name].alive for name, life in lives.items())
        # What has an owner has a living one.
        assert all(self._lives[owner].alive for owner in self._owners.values() if owner is not None)
        assert all(self._lives[task.claimed_by].alive for task in self._tasks.values() if task.claimed_by is not None)
        assert all(task.claimed_by for task in self._tasks.values() if task.state is TaskState.RUNNING)


@pytest.mark.hypothesis
def test_no_device_has_two_owners_and_no_task_runs_without_a_living_one_whatever_lives_do() -> None:
    run_state_machine_as_test(LifeStates, settings=settings(max_examples=30, stateful_step_count=60, deadline=None))
