"""Random sequences of operations on the store, compared with a dictionary.

The store is closed and opened again between two operations, by the same life of a daemon until that ends. Commits fail or lose their
answers, and operations are repeated with their tokens.
"""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from trio.testing import MockClock

import galaxy_trio.daemon.store.store
from galaxy_trio.daemon.store.queries import IdempotencyConflict, WrongState
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import Store, open_store
from tests.daemon.support.commit_faults import Fault, commit_faults
from tests.daemon.support.store import kill

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon

_ENDS = [state for state in TaskState if state.ended]
_PICK = st.integers(0, 10_000)
_FAULTS = st.lists(st.sampled_from([Fault.NOT_DONE, Fault.ANSWER_LOST]), max_size=3)


class StoreStates(RuleBasedStateMachine):
    """A store, and a dictionary with the expected states."""

    def __init__(self, location: Location) -> None:
        super().__init__()
        self._location = location
        # In the order in which they were accepted.
        self._states: dict[str, TaskState] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        # The token of each task's latest attempt.
        self._tokens: dict[str, str] = {}
        self._departures: dict[str, int] = {}
        self._numbers = count()
        self._life = uuid.uuid4().hex

    def _with_store(
        self, use: Callable[[Store], Awaitable[None]], faults: Sequence[Fault] = (), *, compares: bool = True
    ) -> None:
        """Open the store and use it, while its next commits have these faults. Then compare it with the dictionary, if its life goes on."""

        async def leave() -> None:
            await trio.lowlevel.checkpoint()

        async def main() -> None:
            async with AsyncExitStack() as stack:
                patch = stack.enter_context(pytest.MonkeyPatch.context())
                patch.setattr(
                    galaxy_trio.daemon.store.store, "uuid", SimpleNamespace(uuid4=lambda: uuid.UUID(self._life))
                )
                store = await stack.enter_async_context(open_store(self._location))
                assert store.life == self._life
                # Its life goes on.
                stack.callback(setattr, store, "end_life", leave)
                planned = stack.enter_context(commit_faults(store)).plan
                planned += faults
                await use(store)
                planned.clear()
                if compares:
                    await self._compare(store)

        trio.run(main, clock=MockClock(autojump_threshold=0))

    async def _compare(self, store: Store) -> None:
        records = await store.page(limit=1000)
        assert [(record.id, record.state) for record in reversed(records)] == list(self._states.items())
        queued = [task_id for task_id, state in self._states.items() if state is TaskState.QUEUED]
        await store.return_all_claims(store.life)
        assert [record.id for record in await store.claim(Requirement(), store.life, 1000)] == queued
        counts = await store.counts()
        assert {state: counts[state] for state in TaskState} == {
            state: list(self._states.values()).count(state) for state in TaskState
        }
        for task_id in self._states:
            assert len(await store.departures(task_id)) == self._departures.get(task_id, 0)

    def _some(self, pick: int) -> str | None:
        return list(self._states)[pick % len(self._states)] if self._states else None

    @rule(request=st.sampled_from(["a", "b"]), key=st.none() | st.sampled_from(["k1", "k2"]), faults=_FAULTS)
    def add(self, request: str, key: str | None, faults: list[Fault]) -> None:
        async def use(store: Store) -> None:
            asked = TaskRequest(request, idempotency_key=key)
            if key in self._keys and self._keys[key][1] != request:
                try:
                    await store.add(asked, claimed_by=store.life)
                except IdempotencyConflict:
                    return
                raise AssertionError("two tasks have one key")
            delivered: list[tuple[TaskRecord, bool]] = []
            record, is_new = await store.add(asked, delivered.append, store.life)
            assert delivered == [(record, is_new)]
            assert is_new == (key is None or key not in self._keys)
            if is_new:
                self._states[record.id] = TaskState.QUEUED
                if key is not None:
                    self._keys[key] = (record.id, request)
            else:
                assert record.id == self._keys[str(key)][0]

        self._with_store(use, faults)

    @rule(tasks=st.integers(2, 5), faults=_FAULTS)
    def add_together(self, tasks: int, faults: list[Fault]) -> None:
        async def use(store: Store) -> None:
            delivered: list[TaskRecord] = []

            def deliver(added: tuple[TaskRecord, bool]) -> None:
                delivered.append(added[0])

            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(store.add, TaskRequest("a"), deliver)
            assert len(delivered) == tasks
            self._states.update({record.id: TaskState.QUEUED for record in delivered})

        self._with_store(use, faults)

    def _change(
        self,
        task_id: str,
        allowed: bool,
        change: Callable[[Store], Awaitable[TaskRecord]],
        state: TaskState,
        faults: Sequence[Fault],
        times: int,
    ) -> None:
        """Change a task by the same call several times."""

        async def use(store: Store) -> None:
            for _ in range(times):
                try:
                    record = await change(store)
                except WrongState:
                    assert not allowed
                else:
                    assert allowed
                    assert record.state is state
                    assert await store.get(task_id) == record
                    self._states[task_id] = state

        self._with_store(use, faults)

    @rule(pick=_PICK, faults=_FAULTS, times=st.integers(1, 3))
    def mark_running(self, pick: int, faults: list[Fault], times: int) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        token = f"attempt {next(self._numbers)}"
        allowed = self._states[task_id] is TaskState.QUEUED
        if allowed:
            self._tokens[task_id] = token
        self._change(
            task_id,
            allowed,
            lambda store: store.mark_running(task_id, "d", token, store.life),
            TaskState.RUNNING,
            faults,
            times,
        )

    @rule(pick=_PICK, faults=_FAULTS, times=st.integers(1, 3))
    def mark_queued(self, pick: int, faults: list[Fault], times: int) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        token = self._tokens.get(task_id, "no attempt")
        if self._states[task_id] is TaskState.RUNNING:
            self._departures[task_id] = self._departures.get(task_id, 0) + 1
        # An attempt that was returned before is returned already.
        allowed = self._states[task_id] in (TaskState.QUEUED, TaskState.RUNNING) and task_id in self._tokens
        self._change(task_id, allowed, lambda store: store.mark_queued(task_id, token), TaskState.QUEUED, faults, times)

    @rule(pick=_PICK, state=st.sampled_from(_ENDS), faults=_FAULTS, times=st.integers(1, 3))
    def finish(self, pick: int, state: TaskState, faults: list[Fault], times: int) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        allowed = not self._states[task_id].ended
        token = self._tokens.setdefault(task_id, f"attempt {next(self._numbers)}") if allowed else "another attempt"
        self._change(
            task_id,
            allowed,
            lambda store: store.finish(task_id, token, store.life, state, result='"r"'),
            state,
            faults,
            times,
        )

    @rule(pick=_PICK, state=st.sampled_from(_ENDS))
    def end_by_another_attempt(self, pick: int, state: TaskState) -> None:
        task_id = self._some(pick)
        if task_id is None or self._states[task_id] is TaskState.QUEUED:
            return
        self._change(task_id, False, lambda store: store.finish(task_id, "another", store.life, state), state, (), 1)
        self._change(task_id, False, lambda store: store.mark_queued(task_id, "another"), state, (), 1)

    @rule(pick=_PICK, faults=_FAULTS)
    def cancel(self, pick: int, faults: list[Fault]) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return

        async def use(store: Store) -> None:
            delivered: list[TaskRecord] = []
            record, changed = await store.cancel_queued(task_id, delivered.append)
            assert changed == (self._states[task_id] is TaskState.QUEUED)
            assert delivered == [record] * changed
            if changed:
                self._tokens.pop(task_id, None)
            self._states[task_id] = record.state

        self._with_store(use, faults)

    @rule(faults=_FAULTS, limit=st.integers(1, 3))
    def fail_queued(self, faults: list[Fault], limit: int) -> None:
        async def use(store: Store) -> None:
            queued = [task_id for task_id, state in self._states.items() if state is TaskState.QUEUED][:limit]
            failed = await store.fail_queued(Requirement(), "no device", limit)
            assert [record.id for record in failed] == queued
            self._states.update(dict.fromkeys(queued, TaskState.FAILED))

        self._with_store(use, faults)

    @rule(pick=_PICK, faults=_FAULTS)
    def retry(self, pick: int, faults: list[Fault]) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return

        async def use(store: Store) -> None:
            try:
                record = await store.retry(task_id)
            except WrongState:
                assert not self._states[task_id].ended
            else:
                self._states[record.id] = TaskState.QUEUED

        self._with_store(use, faults)

    @rule(is_killed=st.booleans(), faults=_FAULTS)
    def begin_another_life(self, is_killed: bool, faults: list[Fault]) -> None:
        running = [task_id for task_id, state in self._states.items() if state is TaskState.RUNNING]

        async def end(store: Store) -> None:
            if is_killed:
                await kill(store)
            else:
                await store.end_life()
                self._states.update(dict.fromkeys(running, TaskState.LOST))

        async def begin(store: Store) -> None:
            await trio.lowlevel.checkpoint()
            assert store.lost_at_start == is_killed * len(running)
            self._states.update(dict.fromkeys(running, TaskState.LOST))

        self._with_store(end, faults, compares=False)
        self._life = uuid.uuid4().hex
        self._with_store(begin)


@pytest.mark.hypothesis
def test_store_agrees_with_a_dictionary_whatever_commits_fail(
    new_database: Callable[[], Location], request: pytest.FixtureRequest
) -> None:
    # To open a store takes longer on PostgreSQL.
    examples = 10 if "sqlite" in request.node.name else 4
    run_state_machine_as_test(
        # It is only called.
        cast("type[StoreStates]", lambda: StoreStates(new_database())),
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None),
    )
