"""Data for tests of the scheduler."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from galaxy_trio.daemon.device_slots import DeviceState
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState

AWAY: Final = DeviceState(connected=False, usable=True, known=False, os=None, capabilities=frozenset())
PAGE: Final = 6
"""Tasks in a page."""


def make_record(number: int, requirement: Requirement, priority: int = 0) -> TaskRecord:
    """A queued task."""
    asked = TaskRequest("x", requirement.device, requirement.os, requirement.capabilities, priority=priority)
    return TaskRecord(f"t{number}", asked, TaskState.QUEUED, datetime(2026, 1, 1, tzinfo=UTC), number=number)
