"""The metrics of the daemon for Prometheus: most are read when it asks for them, events are counted as they happen."""

from __future__ import annotations

import math
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
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
    from galaxy_trio.events import Event

_LAG_INTERVAL: Final = 1.0
"""Seconds between measurements of the event-loop delay."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE"})
_COUNTED: Final[Mapping[type[object], str]] = {
    LateReplyReceived: "late",
    DuplicateReplyReceived: "duplicate",
    UnknownReplyReceived: "unknown",
    InvalidMessageReceived: "invalid",
}


class Metrics:
    """The metrics of a constellation and its tasks.

    Args:
        constellation: The devices that this daemon owns.
        task_queue: The tasks.
        event_stream: The clients that read events.
        lease_left: Returns the seconds until the daemon's lease ends; `math.inf` if it has none.
    """

    def __init__(
        self,
        constellation: Constellation,
        task_queue: TaskQueue,
        event_stream: ServerSentEventStream,
        lease_left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._constellation = constellation
        self._task_queue = task_queue
        self._event_stream = event_stream
        self._lease_left = lease_left
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
            "Event-loop delay, in seconds.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
            registry=self._registry,
        )

    def count(self, event: Event | EventsLost) -> None:
        """Count an event of the constellation."""
        if isinstance(event, EventsLost):
            self._lost_events += event.count
        elif type(event) in _COUNTED:
            self._messages[_COUNTED[type(event)]] += 1

    def count_task(self, record: TaskRecord) -> None:
        """Count a task whose state has changed."""
        if record.ended is not None:
            self._ended[record.state.value] += 1
            if record.started is not None:
                self._tasks.observe((record.ended - record.started).total_seconds())

    def timed(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application so that its requests are timed."""

        async def time_request(scope: Scope, receive: Receive, send: Send) -> None:
            began = trio.current_time()

            async def watch(message: Message) -> None:
                if message["type"] == "http.response.start":
                    # The route's path, not the request's: clients must not be able to create time series.
                    endpoint: object = scope.get("endpoint")
                    method = scope["method"] if scope["method"] in _METHODS else "other"
                    labels = (method, getattr(endpoint, "__name__", "none"), str(message["status"]))
                    self._requests.labels(*labels).observe(trio.current_time() - began)
                await send(message)

            await app(scope, receive, watch)

        return time_request

    async def measure_delay(self) -> None:
        """Measure the event-loop delay periodically."""
        while True:
            due = trio.current_time() + _LAG_INTERVAL
            await trio.sleep_until(due)
            self._lag.observe(max(0.0, trio.current_time() - due))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The metrics that are read now. Called by the registry."""
        statistics = self._constellation.statistics()
        statuses = Counter(device.status for device in statistics.devices.values())
        by_status = GaugeMetricFamily("galaxy_devices", "Devices by status.", labels=["status"])
        for status in DeviceStatus:
            by_status.add_metric([status.value], statuses[status])
        yield by_status
        yield GaugeMetricFamily("galaxy_owned_devices", "Devices that this daemon owns.", value=len(statistics.devices))
        left = self._lease_left()
        if left != math.inf:
            yield GaugeMetricFamily("galaxy_lease_seconds", "Seconds until the daemon's lease ends.", value=left)
        connects = CounterMetricFamily("galaxy_connects", "Times that a device was connected.", labels=["device"])
        queues = GaugeMetricFamily("galaxy_device_queue", "Queued tasks that name a device.", labels=["device"])
        for name, device in statistics.devices.items():
            connects.add_metric([name], device.connects)
            queues.add_metric([name], self._task_queue.queued_for(name))
        yield connects
        yield queues
        tasks = GaugeMetricFamily("galaxy_tasks", "Queued and running tasks.", labels=["state"])
        tasks.add_metric(["queued"], self._task_queue.queued)
        tasks.add_metric(["running"], self._task_queue.running)
        yield tasks
        ended = CounterMetricFamily("galaxy_tasks_ended", "Tasks that have ended since the start.", labels=["state"])
        for state in ("completed", "failed", "cancelled", "lost"):
            ended.add_metric([state], self._ended[state])
        yield ended
        yield GaugeMetricFamily(
            "galaxy_tasks_in_memory",
            "Queued tasks that are in memory; the others are on disk.",
            value=self._task_queue.in_memory,
        )
        yield GaugeMetricFamily(
            "galaxy_memory_held_bytes",
            "Bytes that connections hold, of the memory budget.",
            value=statistics.memory_held,
        )
        yield CounterMetricFamily(
            "galaxy_connections_closed_for_memory",
            "Connections that were closed because of the memory budget.",
            value=statistics.closed_for_memory,
        )
        messages = CounterMetricFamily("galaxy_messages", "Unexpected messages from servers.", labels=["kind"])
        for kind in _COUNTED.values():
            messages.add_metric([kind], self._messages[kind])
        yield messages
        yield CounterMetricFamily(
            "galaxy_events_lost", "Events of the constellation that the daemon missed.", value=self._lost_events
        )
        yield GaugeMetricFamily(
            "galaxy_event_listeners", "Clients that read /events.", value=self._event_stream.listeners
        )
        yield CounterMetricFamily(
            "galaxy_event_listeners_dropped",
            "Clients of /events that were dropped because they were too slow.",
            value=self._event_stream.dropped,
        )
