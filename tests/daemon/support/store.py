"""Adds tasks to a store, reads them, and ends a store as a killed daemon does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from sqlalchemy import update

from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.schema import DAEMONS

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = "an attempt"


async def add_task(store: Store, request: str = "echo", **more: object) -> TaskRecord:
    """Add a task, claimed by the store's life."""
    asked = TaskRequest(request, **more)  # type: ignore[arg-type]
    record, is_new = await store.add(asked, claimed_by=store.life)
    assert is_new
    return record


async def add_ended_task(store: Store, state: TaskState = TaskState.COMPLETED, result: str | None = None) -> TaskRecord:
    record = await add_task(store)
    await store.mark_running(record.id, "d1", ATTEMPT, store.life)
    return await store.finish(record.id, ATTEMPT, store.life, state, result=result)


async def queued_tasks(store: Store) -> list[TaskRecord]:
    """All queued tasks, the oldest first."""
    return (await store.page(state=TaskState.QUEUED, limit=10_000))[::-1]


async def read_result(store: Store, task_id: str) -> str:
    return b"".join([piece async for piece in store.read_result(task_id)]).decode()


async def kill(store: Store) -> None:
    """Let a store leave its life as a killed daemon does: its end is not written, and its lease has expired."""

    async def write_nothing() -> None:
        await trio.lowlevel.checkpoint()

    store.end_life = write_nothing  # type: ignore[method-assign]
    expired = update(DAEMONS).where(DAEMONS.c.id == store.life).values(expires=0.0)
    await store.write(lambda transaction: transaction.connection.execute(expired))
