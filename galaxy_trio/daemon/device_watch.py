"""Passes the constellation's events on to the dispatcher, the metrics and the feed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from galaxy_trio.daemon.web.bodies import device_as_json
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
    from collections.abc import Callable, Mapping

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.task_queue import Dispatcher
    from galaxy_trio.daemon.web.event_stream import Feed
    from galaxy_trio.daemon.web.metrics import Metrics
    from galaxy_trio.events import EventStream

logger: Final = logging.getLogger(__name__)

_PUBLISHED: Final[Mapping[type[object], str]] = {
    DeviceConnected: "connected",
    DeviceDisconnected: "disconnected",
    DeviceNeedsAttention: "needs attention",
    DeviceFailed: "failed",
    InformationUpdated: "information",
}


async def watch_devices(
    events: EventStream, constellation: Constellation, dispatcher: Dispatcher, feed: Feed, metrics: Metrics
) -> None:
    """Pass on each event until the constellation is closed."""
    async for event in events:
        metrics.count(event)
        if isinstance(event, EventsLost):
            dispatcher.update_devices()
            continue
        if isinstance(event, StatusChanged | InformationUpdated):
            dispatcher.update_device(event.device_id)
        if isinstance(event, StatusChanged):
            status: dict[str, object] = {"device_id": event.device_id, "status": event.status.value}
            feed.publish("status", _always(status))
        elif type(event) in _PUBLISHED and event.device_id in constellation.devices:
            statistics = constellation.devices[event.device_id].statistics()
            logger.info("device %r: %s", event.device_id, _PUBLISHED[type(event)])
            queued = dispatcher.queued_for(event.device_id)
            shown = {"what": _PUBLISHED[type(event)], **device_as_json(statistics, queued)}
            feed.publish("device", _always(shown))


def _always(data: dict[str, object]) -> Callable[[], Mapping[str, object]]:
    return lambda: data
