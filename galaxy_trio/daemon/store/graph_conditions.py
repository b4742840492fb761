"""Evaluates the conditions of edges before a transaction that needs them: a large result takes long to read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio.daemon.store.graph_documents import condition_of
from galaxy_trio.daemon.store.graph_steps import ConditionsNeeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from galaxy_trio.messages import JSON

T = TypeVar("T")

_threads: Final = ThreadLimit("evaluating conditions", 2)


async def with_conditions(
    operation: Callable[[Mapping[tuple[str, str], bool]], Awaitable[T]],
    read_result: Callable[[str], Awaitable[str | None]],
) -> T:
    """Run an operation, again with the conditions that it needs evaluated until it needs no more.

    Cancelling is safe wherever it is for the operation.

    Args:
        operation: Called with the conditions that are known to be met or not. It may raise `ConditionsNeeded`.
        read_result: Returns the result of a task as JSON; `None` if it has none.
    """
    met: dict[tuple[str, str], bool] = {}
    while True:
        try:
            return await operation(met)
        except ConditionsNeeded as needed:
            by_task: dict[str, list[str]] = {}
            for task_id, condition in needed.conditions:
                by_task.setdefault(task_id, []).append(condition)
        # One result at a time is in memory.
        for task_id, conditions in by_task.items():
            result = await read_result(task_id)
            found = await trio.to_thread.run_sync(_evaluate, result, conditions, limiter=_threads.get())
            met |= {(task_id, condition): is_met for condition, is_met in zip(conditions, found, strict=True)}


def _evaluate(result: str | None, conditions: Sequence[str]) -> list[bool]:
    value = None if result is None else cast("JSON", json.loads(result))
    return [condition_of(condition).is_met(value) for condition in conditions]
