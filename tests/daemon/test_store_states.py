"""Random sequences of operations on the store, with restarts in between, compared with a dictionary."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from galaxy_trio.daemon.store.queries import IdempotencyConflict, WrongState
from galaxy_trio.daemon.store.records import Requirement, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.daemon

_ENDS = [state for state in TaskState if state.ended]
_PICK = st.integers(0, 10_000)


class StoreStates(RuleBasedStateMachine):
    """A store, and a dictionary with the expected states."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._path = Path(self._directory.name) / "db"
        # In the order in which they were accepted.
        self._states: dict[str, TaskState] = {}
        self._keys: dict[str, tuple[str, str]] = {}

    def _with_store(self, use: Callable[[Store], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with AsyncExitStack() as stack:
                return await use(await stack.enter_async_context(open_store(self._path)))

        return trio.run(main)

    def _some(self, pick: int) -> str | None:
        return list(self._states)[pick % len(self._states)] if self._states else None

    @initialize()
    def begin(self) -> None:
        self._with_store(lambda store: store.recover())

    @rule(request=st.sampled_from(["a", "b"]), key=st.none() | st.sampled_from(["k1", "k2"]))
    def add(self, request: str, key: str | None) -> None:
        async def use(store: Store) -> None:
            asked = TaskRequest(request, idempotency_key=key)
            if key in self._keys and self._keys[key][1] != request:
                try:
                    await store.add(asked)
                except IdempotencyConflict:
                    return
                raise AssertionError("two tasks have one key")
            record, is_new = await store.add(asked)
            assert is_new == (key is None or key not in self._keys)
            if is_new:
                self._states[record.id] = TaskState.QUEUED
                if key is not None:
                    self._keys[key] = (record.id, request)
            else:
                assert record.id == self._keys[str(key)][0]

        self._with_store(use)

    async def _change(self, task_id: str, allowed: bool, change: Awaitable[Any], state: TaskState) -> None:
        try:
            await change
        except WrongState:
            assert not allowed
        else:
            assert allowed
            self._states[task_id] = state

    @rule(pick=_PICK)
    def mark_running(self, pick: int) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        allowed = self._states[task_id] is TaskState.QUEUED
        self._with_store(
            lambda store: self._change(task_id, allowed, store.mark_running(task_id, "d"), TaskState.RUNNING)
        )

    @rule(pick=_PICK)
    def mark_queued(self, pick: int) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        allowed = self._states[task_id] is TaskState.RUNNING
        self._with_store(lambda store: self._change(task_id, allowed, store.mark_queued(task_id), TaskState.QUEUED))

    @rule(pick=_PICK, state=st.sampled_from(_ENDS))
    def finish(self, pick: int, state: TaskState) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        allowed = not self._states[task_id].ended
        self._with_store(lambda store: self._change(task_id, allowed, store.finish(task_id, state), state))

    @rule(pick=_PICK)
    def cancel(self, pick: int) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        record, changed = self._with_store(lambda store: store.cancel_queued(task_id))
        assert changed == (self._states[task_id] is TaskState.QUEUED)
        self._states[task_id] = record.state

    @rule(pick=_PICK)
    def retry(self, pick: int) -> None:
        task_id = self._some(pick)
        if task_id is None:
            return
        try:
            record = self._with_store(lambda store: store.retry(task_id))
        except* WrongState:
            assert not self._states[task_id].ended
        else:
            self._states[record.id] = TaskState.QUEUED

    @rule()
    def begin_again(self) -> None:
        running = [task_id for task_id, state in self._states.items() if state is TaskState.RUNNING]
        assert self._with_store(lambda store: store.recover()) == len(running)
        self._states.update(dict.fromkeys(running, TaskState.LOST))

    @invariant()
    def says_the_same(self) -> None:
        async def use(store: Store) -> None:
            records = await store.page(limit=1000)
            assert [(record.id, record.state) for record in reversed(records)] == list(self._states.items())
            queued = [task_id for task_id, state in self._states.items() if state is TaskState.QUEUED]
            assert [record.id for record in await store.queued(Requirement(), 0, 1000)] == queued
            counts = await store.counts()
            assert {state: counts[state] for state in TaskState} == {
                state: list(self._states.values()).count(state) for state in TaskState
            }

        self._with_store(use)

    def teardown(self) -> None:
        self._directory.cleanup()


TestStoreStates = StoreStates.TestCase
TestStoreStates.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
