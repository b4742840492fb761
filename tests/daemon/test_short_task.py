"""The short form of a task, from which another daemon makes the task again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given

from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.short_task import short_task, task_of

pytestmark = pytest.mark.daemon

_TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_TIME: Final = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # the zone is the next argument
_RECORDS: Final = st.builds(
    TaskRecord,
    id=_TEXT,
    asked=st.builds(
        TaskRequest,
        request=_TEXT,
        device=st.none() | _TEXT,
        os=st.none() | _TEXT,
        capabilities=st.lists(_TEXT, max_size=3).map(tuple),
        timeout=st.floats(0.1, 1e6),
        idempotency_key=st.none() | _TEXT,
        priority=st.integers(-100, 100),
    ),
    state=st.sampled_from(TaskState),
    created=_TIME,
    device=st.none() | _TEXT,
    started=st.none() | _TIME,
    ended=st.none() | _TIME,
    error=st.none() | _TEXT,
    result_size=st.none() | st.integers(0, 10**9),
    retry_of=st.none() | _TEXT,
    number=st.integers(1, 10**12),
    request_size=st.integers(0, 10**9),
    error_size=st.none() | st.integers(0, 10**9),
)
_RECORD: Final = TaskRecord("id", TaskRequest("echo"), TaskState.QUEUED, datetime(2026, 1, 1, tzinfo=UTC), number=1)


@given(_RECORDS)
def test_task_is_the_same_when_it_comes_from_its_short_form_as_json(record: TaskRecord) -> None:
    assert task_of(json.loads(json.dumps(short_task(record)))) == record


@pytest.mark.parametrize(
    "change", [{"state": "paused"}, {"created": "yesterday"}, {"wants": None}, {"wants": {}}, {"created": 5}]
)
def test_short_form_of_another_version_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        task_of(short_task(_RECORD) | change)


def test_short_form_without_a_member_is_refused() -> None:
    for member in short_task(_RECORD).keys() - {"result_url"}:
        short = short_task(_RECORD)
        del short[member]
        with pytest.raises(KeyError):
            task_of(short)
