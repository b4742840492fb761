"""Forwards the constellation's events to the task queue, the metrics and the listeners."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from galaxy_trio.daemon.web.short_forms import short_device
from galaxy_trio.events import (
    DeviceConnected,
    DeviceDisconnected,
    DeviceFailed,
    DeviceNeedsAttention,
    EventsLost,
    InformationUpdated,
    StatusChanged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.device_events import DeviceEvents
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.daemon.web.metrics import Metrics
    from galaxy_trio.events import Event, EventStream

logger: Final = logging.getLogger(__name__)

_PUBLISHED: Final[Mapping[type[object], str]] = {
    DeviceConnected: "connected",
    DeviceDisconnected: "disconnected",
    DeviceNeedsAttention: "needs attention",
    DeviceFailed: "failed",
    InformationUpdated: "information",
}
_WITH_REASON: Final = (DeviceDisconnected, DeviceNeedsAttention, DeviceFailed)


async def watch_devices(
    events: EventStream[Event],
    constellation: Constellation,
    task_queue: TaskQueue,
    device_events: DeviceEvents,
    metrics: Metrics,
) -> None:
    """Forward each event until the constellation is closed."""
    async for event in events:
        metrics.count(event)
        if isinstance(event, EventsLost):
            task_queue.update_devices()
            continue
        if isinstance(event, StatusChanged | InformationUpdated):
            task_queue.update_device(event.device_id)
        if isinstance(event, StatusChanged):
            device_events.publish("status", {"device_id": event.device_id, "status": event.status.value})
        elif type(event) in _PUBLISHED and event.device_id in constellation.devices:
            statistics = constellation.devices[event.device_id].statistics()
            reason = f": {event.reason}" if isinstance(event, _WITH_REASON) else ""
            logger.info("device %r: %s%s", event.device_id, _PUBLISHED[type(event)], reason)
            queued = task_queue.queued_for(event.device_id)
            device_events.report(constellation.devices[event.device_id])
            device_events.publish("device", {"what": _PUBLISHED[type(event)], **short_device(statistics, queued)})
