"""The short form of devices, in which lists and events show them, and the whole forms of devices and, in pieces, of tasks.

A short form has at most `MAX_EXCERPT` bytes of each text that may be long, and the sizes of the whole texts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from galaxy_trio.daemon.store.queries import NoSuchTask
from galaxy_trio.daemon.store.records import MAX_EXCERPT
from galaxy_trio.daemon.store.short_task import short_task
from galaxy_trio.daemon.web.bodies import device_as_json
from galaxy_trio.daemon.web.history import history_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio import DeviceStatistics
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store


async def whole_task(store: Store, record: TaskRecord, *, with_result: bool) -> AsyncGenerator[bytes]:
    """Yield a task as JSON, in pieces, so that it is never in memory as a whole.

    Args:
        store: The tasks.
        record: The task. Its error and its result are read only if it has one here.
        with_result: Whether to add its result.

    Raises:
        NoSuchTask: The task was deleted.
    """
    members = {**short_task(record), "history": history_of(record, await store.departures(record.id))}
    cut: list[str] = []
    for name, size in (("request", record.request_size), ("error", record.error_size)):
        if (size or 0) > MAX_EXCERPT:
            cut.append(name)
            del members[name]
    yield _encoded(members)[:-1]
    for name in cut:
        yield f',"{name}":"'.encode()
        async for text in store.read_text(record.id, name):
            yield _encoded(text)[1:-1]
        yield b'"'
    if with_result:
        yield b',"result":'
        size = 0
        # It is stored as JSON, and not decoded.
        async for piece in store.read_result(record.id):
            size += len(piece)
            yield piece
        if size != record.result_size:
            raise NoSuchTask(f"there is no task {record.id!r}")
    yield b"}"


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def short_device(device: DeviceStatistics, queued: int) -> dict[str, object]:
    """Represent a device as `whole_device` does, with the first capabilities and the beginning of the problem."""
    capabilities: list[str] = []
    left = MAX_EXCERPT
    for capability in device.capabilities:
        left -= len(capability.encode())
        if left < 0:
            break
        capabilities.append(capability)
    problem = None if device.problem is None else device.problem.encode()[:MAX_EXCERPT].decode("utf-8", "ignore")
    short = attrs.evolve(device, capabilities=tuple(capabilities), problem=problem)
    return {**device_as_json(short, queued), **_sizes(device)}


def whole_device(device: DeviceStatistics, queued: int) -> dict[str, object]:
    """Represent a device's current state, with the number of tasks that wait for it, most of which are on disk."""
    return {**device_as_json(device, queued), **_sizes(device)}


def _sizes(device: DeviceStatistics) -> dict[str, object]:
    return {
        "capability_count": len(device.capabilities),
        "problem_size": None if device.problem is None else len(device.problem.encode()),
    }
