"""The short form of a task as JSON, in which lists, responses and events show it.

It has at most `MAX_EXCERPT` bytes of the task's request and of its error, and their sizes.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping


def short_task(record: TaskRecord) -> dict[str, object]:
    """Represent a task without its result, with the beginning of its request and of its error, and their sizes."""
    asked = record.asked
    return {
        "id": record.id,
        "number": record.number,
        "state": record.state.value,
        "request": asked.request,
        "wants": {"device": asked.device, "os": asked.os, "capabilities": list(asked.capabilities)},
        "timeout": asked.timeout,
        "priority": asked.priority,
        "idempotency_key": asked.idempotency_key,
        "device": record.device,
        "created": record.created.isoformat(),
        "started": None if record.started is None else record.started.isoformat(),
        "ended": None if record.ended is None else record.ended.isoformat(),
        "error": record.error,
        "retry_of": record.retry_of,
        "result_size": record.result_size,
        "result_url": None if record.result_size is None else f"/tasks/{record.id}/result",
        "request_size": record.request_size,
        "error_size": record.error_size,
        "graph": record.graph,
        "node": record.node,
    }


def task_of(short: Mapping[str, Any]) -> TaskRecord:  # Any: the values of JSON
    """The task that `short_task` has represented.

    Raises:
        KeyError, TypeError, ValueError: Another version has represented it in another way.
    """
    wants = short["wants"]
    return TaskRecord(
        short["id"],
        TaskRequest(
            short["request"],
            wants["device"],
            wants["os"],
            tuple(wants["capabilities"]),
            short["timeout"],
            short["idempotency_key"],
            short["priority"],
        ),
        TaskState(short["state"]),
        datetime.fromisoformat(short["created"]),
        short["device"],
        None if short["started"] is None else datetime.fromisoformat(short["started"]),
        None if short["ended"] is None else datetime.fromisoformat(short["ended"]),
        short["error"],
        short["result_size"],
        short["retry_of"],
        short["number"],
        short["request_size"],
        short["error_size"],
        short["graph"],
        short["node"],
    )
