"""Adds tasks to a store, and reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest, TaskState

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = "an attempt"


async def add_task(store: Store, request: str = "echo", **more: object) -> TaskRecord:
    record, is_new = await store.add(TaskRequest(request, **more))  # type: ignore[arg-type]
    assert is_new
    return record


async def add_ended_task(store: Store, state: TaskState = TaskState.COMPLETED, result: str | None = None) -> TaskRecord:
    record = await add_task(store)
    await store.mark_running(record.id, "d1", ATTEMPT)
    return await store.finish(record.id, ATTEMPT, state, result=result)


async def queued_tasks(store: Store) -> list[TaskRecord]:
    """All queued tasks, the oldest first."""
    return (await store.page(state=TaskState.QUEUED, limit=10_000))[::-1]


async def read_result(store: Store, task_id: str) -> str:
    return b"".join([piece async for piece in store.read_result(task_id)]).decode()
