"""What Prometheus is told: read off when it asks, but for what can only be counted as it happens."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import prometheus_client
import trio
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from galaxy_trio import DeviceStatus
from galaxy_trio.events import (
    DuplicateReplyReceived,
    EventsLost,
    InvalidMessageReceived,
    LateReplyReceived,
    UnknownReplyReceived,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.task_queue import Dispatcher
    from galaxy_trio.daemon.web.event_stream import Feed
    from galaxy_trio.events import Event

_EVERY: Final = 1.0
"""Seconds between two looks at how late the scheduler is."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE"})
_COUNTED: Final[Mapping[type[object], str]] = {
    LateReplyReceived: "late",
    DuplicateReplyReceived: "duplicate",
    UnknownReplyReceived: "unknown",
    InvalidMessageReceived: "invalid",
}


class Metrics:
    """What is told of a constellation and its tasks."""

    def __init__(self, constellation: Constellation, dispatcher: Dispatcher, feed: Feed) -> None:
        self._constellation = constellation
        self._dispatcher = dispatcher
        self._feed = feed
        self._messages: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._lost_events = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._requests = Histogram(
            "galaxy_http_request_seconds",
            "Seconds until the response to a request began.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._tasks = Histogram(
            "galaxy_task_seconds",
            "Seconds that a task ran.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
            registry=self._registry,
        )
        self._lag = Histogram(
            "galaxy_scheduler_lag_seconds",
            "How late a task was that slept for a second.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
            registry=self._registry,
        )

    def count(self, event: Event | EventsLost) -> None:
        """Something happened to a device."""
        if isinstance(event, EventsLost):
            self._lost_events += event.count
        elif type(event) in _COUNTED:
            self._messages[_COUNTED[type(event)]] += 1

    def count_task(self, record: TaskRecord) -> None:
        """A task is in another state."""
        if record.ended is not None:
            self._ended[record.state.value] += 1
            if record.started is not None:
                self._tasks.observe((record.ended - record.started).total_seconds())

    def timed(self, app: ASGIApp) -> ASGIApp:
        """The same application, with its requests timed."""

        async def time_request(scope: Scope, receive: Receive, send: Send) -> None:
            began = trio.current_time()

            async def watch(message: Message) -> None:
                if message["type"] == "http.response.start":
                    # The routes that there are, and not whatever somebody asks for.
                    endpoint: object = scope.get("endpoint")
                    method = scope["method"] if scope["method"] in _METHODS else "other"
                    labels = (method, getattr(endpoint, "__name__", "none"), str(message["status"]))
                    self._requests.labels(*labels).observe(trio.current_time() - began)
                await send(message)

            await app(scope, receive, watch)

        return time_request

    async def watch_scheduler(self) -> None:
        """Look at how late trio's scheduler is, for ever."""
        while True:
            due = trio.current_time() + _EVERY
            await trio.sleep_until(due)
            self._lag.observe(max(0.0, trio.current_time() - due))

    def render(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is read off now; called by the registry."""
        statistics = self._constellation.statistics()
        statuses = Counter(device.status for device in statistics.devices.values())
        connections = GaugeMetricFamily("galaxy_devices", "Devices by status.", labels=["status"])
        for status in DeviceStatus:
            connections.add_metric([status.value], statuses[status])
        yield connections
        reconnects = CounterMetricFamily("galaxy_connects", "Times that a device was connected.", labels=["device"])
        queues = GaugeMetricFamily(
            "galaxy_device_queue", "Tasks that wait for a device by its name.", labels=["device"]
        )
        for name, device in statistics.devices.items():
            reconnects.add_metric([name], device.connects)
            queues.add_metric([name], self._dispatcher.queued_for(name))
        yield reconnects
        yield queues
        tasks = GaugeMetricFamily("galaxy_tasks", "Tasks that wait or run.", labels=["state"])
        tasks.add_metric(["queued"], self._dispatcher.queued)
        tasks.add_metric(["running"], self._dispatcher.running)
        yield tasks
        ended = CounterMetricFamily("galaxy_tasks_ended", "Tasks that have ended since the start.", labels=["state"])
        for state in ("completed", "failed", "cancelled", "lost"):
            ended.add_metric([state], self._ended[state])
        yield ended
        yield GaugeMetricFamily(
            "galaxy_tasks_in_memory",
            "Tasks that wait and are in memory; the others are on disk.",
            value=self._dispatcher.in_memory,
        )
        messages = CounterMetricFamily("galaxy_messages", "Messages of servers that were nobody's.", labels=["kind"])
        for kind in _COUNTED.values():
            messages.add_metric([kind], self._messages[kind])
        yield messages
        yield CounterMetricFamily("galaxy_events_lost", "Events that the daemon missed.", value=self._lost_events)
        yield GaugeMetricFamily("galaxy_event_listeners", "Who listens to the events.", value=self._feed.listeners)
        yield CounterMetricFamily(
            "galaxy_event_listeners_dropped", "Listeners that were too slow.", value=self._feed.dropped
        )
