"""Conversion between rows of the database and records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState

if TYPE_CHECKING:
    from sqlalchemy import Row


def text_beginning(text: bytes) -> str:
    """The beginning of a text in UTF-8, which may be cut in a character."""
    return text.decode("utf-8", "ignore")


def time_of(seconds: float | None) -> datetime | None:
    """The time that a column's value holds."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def seconds_of(time: datetime | None) -> float | None:
    """The value of a column that holds a time."""
    return None if time is None else time.timestamp()


def requirement_columns(requirement: Requirement) -> dict[str, str | None]:
    """The values of the columns that hold a requirement."""
    return {
        "required_device": requirement.device,
        "required_os": requirement.os,
        "required_capabilities": capabilities_text(requirement.capabilities),
    }


def make_record(row: Row[Any]) -> TaskRecord:  # Any: the values of any column
    """Make a record from the row of a task."""
    (
        number, task_id, state, request, request_size, asked_device, os, capabilities, timeout, idempotency_key, priority,
        device, created, started, ended, error, error_size, result_size, retry_of, graph, node,
    ) = cast("tuple[Any, ...]", row)  # fmt: skip
    return TaskRecord(
        task_id,
        TaskRequest(
            text_beginning(request),
            asked_device,
            os,
            capabilities_from(capabilities),
            timeout,
            idempotency_key,
            priority,
        ),
        TaskState(state),
        datetime.fromtimestamp(created, UTC),
        device,
        time_of(started),
        time_of(ended),
        None if error is None else text_beginning(error),
        result_size,
        retry_of,
        number,
        request_size,
        error_size,
        graph,
        node,
    )


def capabilities_text(capabilities: tuple[str, ...]) -> str:
    """The value of the column that holds capabilities."""
    return json.dumps(capabilities) if capabilities else "[]"


def capabilities_from(text: str) -> tuple[str, ...]:
    """The capabilities that a column's value holds."""
    return () if text == "[]" else tuple(cast("list[str]", json.loads(text)))
