"""The promises that the journal of a run must keep under all faults."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from galaxy_trio.constellation.pool import FRESH
from galaxy_trio.events import StatusChanged, TaskEnded, TaskOutcome
from tests.simulation.order_promises import broken_promises_of_order
from tests.simulation.slot_promises import OF_DEVICES, OF_POOL, broken_promises_of_slots, times_of_submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from galaxy_trio.events import DeviceStatus
    from tests.simulation.journal import Entry, Journal
    from tests.simulation.plan import DisturbanceKind, Plan, PlannedCall

_SOON: Final = 0.01
"""Seconds for something immediate: trio tasks run one after the other."""
_SLOW: Final = 1e6
"""Bytes per second. Below this, results delay each other by more than these promises allow."""
_STOP_OF_SERVER: Final = 10.0
"""Seconds for a server to stop."""
_UNSEEN: Final[frozenset[DisturbanceKind]] = frozenset(
    {"partition", "silence", "slow reader", "pooled partition", "pooled silence"},
)
"""Faults that no socket shows: only a missing pong reveals them."""
_SEEN: Final[frozenset[DisturbanceKind]] = frozenset(
    {
        "reset",
        "pooled reset",
        "pooled close",
        "death of server",
        "disconnect",
        "reconnect",
        "removal",
        "immediate removal",
    }
)
"""Faults and changes that the socket shows after the network's latency."""


def broken_promises(plan: Plan, journal: Journal) -> list[str]:
    """Describe the broken promises."""
    return [
        *_Calls(plan, journal).problems(),
        *_of_events(plan, journal),
        *broken_promises_of_slots(plan, journal),
        *broken_promises_of_order(plan, journal),
    ]


class _Calls:
    """Each call ended once with a correct outcome, and its task ran at most once."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self._plan = plan
        self._journal = journal
        self._separate = {call.name for call in plan.separate_calls}
        self._changed = plan.has("corruption")
        # An error names no request and belongs to the oldest one: here the server may reply out of order.
        self._disordered = self._changed or bool(plan.dishonest) or plan.has("shuffle")
        self._troubles = [entry for entry in journal.entries if (entry.actor, entry.action) == ("world", "disturbs")]
        self._submitted = times_of_submission(journal)
        self._trouble_at = self._first_trouble(frozenset())
        self._connection_trouble_at = self._first_trouble(OF_DEVICES)
        conditions = plan.conditions
        self._carriage = 6 * (conditions.latency + conditions.jitter) + 2e6 / conditions.bandwidth + _SOON
        self._judges: dict[str, Callable[[PlannedCall, Entry, Entry], str | None]] = {
            "completed": self._completed,
            "completed with": self._completed_with_another_result,
            "failed": self._failed,
            "informed": self._informed,
            "held": self._held,
            "cancelled": self._cancelled,
            "RequestTimeout": self._timed_out,
            "RequestRejected": self._rejected,
            "InvalidMessage": self._invalid,
            "QueueFull": self._queue_full,
            "NoSuchDevice": self._no_such_device,
            "ClosedResourceError": self._closed,
            "ConnectionLost": self._lost,
        }

    def _first_trouble(self, harmless: frozenset[DisturbanceKind]) -> float:
        if self._plan.dishonest:
            return 0.0
        times = [trouble.at for trouble in self._troubles if trouble.name not in harmless]
        return min([*times, math.inf if self._plan.closes_at is None else self._plan.closes_at])

    def _could_be_lost(self, device: str, sent_at: float, ended_at: float) -> bool:
        """Whether a fault explains the loss of a task, or of its connection.

        One that the pool could have noticed before it sent the task does not: a connection that has been silent for more than `FRESH`
        seconds must answer a ping, and one whose end the socket shows is not used.
        """
        if self._disordered or (self._plan.closes_at is not None and self._plan.closes_at <= ended_at):
            return True
        return any(
            trouble.at <= ended_at and sent_at <= trouble.at + self._noticed_after(trouble.name)
            for trouble in self._troubles
            if trouble.name not in OF_POOL | OF_DEVICES or trouble.detail.startswith(f"{device}, ")
        )

    def _noticed_after(self, what: str) -> float:
        if what in _UNSEEN:
            return FRESH + _SOON
        if what in _SEEN:
            return self._carriage
        return _STOP_OF_SERVER + self._carriage if what == "stop of server" else -math.inf

    def problems(self) -> Iterator[str]:
        for call in self._plan.calls:
            called = self._journal.of("caller", "calls", call.name)
            ended = self._journal.of("caller", "ends", call.name)
            if len(called) != len(ended):
                yield f"{call.name} was called {len(called)} times and ended {len(ended)} times"
            elif called:
                word = ended[0].detail.partition(":")[0].partition(" {")[0]
                judge = self._judges.get(word, self._no_way_to_end)
                problem = judge(call, called[0], ended[0])
                if problem:
                    yield f"{call.name} ended as {ended[0].detail!r}: {problem}"
            yield from self._of_work(call)

    def _of_work(self, call: PlannedCall) -> Iterator[str]:
        for who in ("device", "server"):
            begun = len(self._journal.of(who, "begins", call.name))
            if begun > 1:
                yield f"the {who} began {call.name} {begun} times"
            if begun != len(self._journal.of(who, "ends", call.name)):
                yield f"the {who} began {call.name} and never ended it"

    def _no_way_to_end(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del call, called, ended
        return "that is no way to end"

    def _completed(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called
        done = [each for each in self._journal.of("device", "ends", call.name) if each.detail == "done"]
        return None if any(each.at <= ended.at for each in done) else "the device has not done it"

    def _completed_with_another_result(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del call, called, ended
        return None if self._changed else "that is not its result"

    def _informed(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called, ended
        return None if call.kind == "information" else "it was a task"

    def _held(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called, ended
        return None if call.kind == "hold" else "it was a task"

    def _failed(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called
        if self._trouble_at <= ended.at:
            return None
        return None if call.fails else "nothing went wrong"

    def _cancelled(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        if call.cancel_after is None:
            return "it was not cancelled"
        if ended.at < called.at + call.cancel_after - 1e-6:
            return "that was too early"
        return self._not_stopped(call, ended)

    def _timed_out(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        if ended.at < called.at + call.timeout - 1e-6:
            return "that was too early"
        return (
            self._not_stopped(call, ended)
            or self._not_answered(call, called, ended)
            or self._not_delivered(call, ended)
        )

    def _not_stopped(self, call: PlannedCall, ended: Entry) -> str | None:
        """The server and the device have noticed it after the latency of the network."""
        soon = ended.at + self._carriage
        if call.name in self._separate or call.on_cancel != "stop" or self._trouble_at < soon:
            return None
        late = [entry for entry in self._journal.of("device", "ends", call.name) if entry.at > soon]
        return f"the device went on until {late[0].at}" if late else None

    def _not_answered(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        """The reply of the server has arrived, unless a fault affected it."""
        if self._plan.conditions.bandwidth < _SLOW:
            return None
        results = [each.at for each in self._journal.of("server", "ends", call.name) if each.detail != "cancelled"]
        if (
            results
            and called.at <= results[0]
            and results[0] + self._carriage < min(ended.at, self._connection_trouble_at)
        ):
            return f"the server had its end at {results[0]}"
        if call.name not in self._separate or called.at + self._carriage > min(ended.at, self._connection_trouble_at):
            return None
        if call.kind == "information":
            return "the server has answered"
        begun = self._journal.of("server", "begins", call.name)
        return None if begun else "the server has refused it, or never received it"

    def _not_delivered(self, call: PlannedCall, ended: Entry) -> str | None:
        """A task of the constellation reached the server, and a refusal by the server reached the caller."""
        if self._plan.conditions.bandwidth < _SLOW or call.name in self._separate or call.on_cancel != "stop":
            return None
        if call.kind == "information" or self._journal.of("server", "begins", call.name):
            return None
        device, sent_at = self._sent(call, ended)
        if sent_at + self._carriage > ended.at or self._could_be_lost(device, sent_at, ended.at):
            return None
        return f"it was sent at {sent_at}, and the server has refused it, or never received it"

    def _sent(self, call: PlannedCall, ended: Entry) -> tuple[str, float]:
        """Return the device to which it was sent last and the time; infinity if it was not sent."""
        sent = [(device, at) for at, device in self._submitted.get(call.name, []) if at <= ended.at]
        return sent[-1] if sent else ("", math.inf)

    def _rejected(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called
        if self._journal.of("device", "begins", call.name) and not self._disordered:
            return "the device has begun it"
        return "nothing went wrong" if self._trouble_at > ended.at else None

    def _invalid(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del call, called, ended
        return None if self._changed or self._plan.dishonest else "no reply was broken"

    def _queue_full(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called, ended
        if self._plan.max_queued > len(self._plan.calls):
            return "there are not as many requests"
        return self._begun(call)

    def _no_such_device(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called, ended
        if not self._plan.has("removal", "immediate removal"):
            return "no device was removed"
        return self._begun(call)

    def _begun(self, call: PlannedCall) -> str | None:
        return "the device has begun it" if self._journal.of("device", "begins", call.name) else None

    def _closed(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called
        closes = self._journal.of("world", "closes")
        if closes and closes[0].at <= ended.at:
            return None
        # A removed device refuses requests for its information like this.
        removed = self._plan.has("removal", "immediate removal") and call.kind == "information"
        return None if removed else "nothing was closed"

    def _lost(self, call: PlannedCall, called: Entry, ended: Entry) -> str | None:
        del called
        if self._trouble_at > ended.at:
            return "nothing went wrong"
        if call.name in self._separate or call.on_cancel != "stop" or call.kind == "information":
            return None
        device, sent_at = self._sent(call, ended)
        if sent_at == math.inf:
            return "it was not sent"
        if self._could_be_lost(device, sent_at, ended.at):
            return None
        return f"it was sent at {sent_at}, on a connection whose end could have been noticed"


_OUTCOMES: Final = {
    "completed": {TaskOutcome.COMPLETED},
    "failed": {TaskOutcome.FAILED},
    "RequestRejected": {TaskOutcome.REJECTED},
    "ConnectionLost": {TaskOutcome.LOST},
}


def _of_events(plan: Plan, journal: Journal) -> Iterator[str]:
    """Each task's events are in order, end once, and agree with its caller's result; a device's statuses follow each other."""
    published: dict[str, list[str]] = {}
    statuses: dict[str, DeviceStatus] = {}
    for event in journal.events:
        match event:
            case StatusChanged():
                before = statuses.get(event.device_id, event.previous)
                if event.previous is not before and not plan.has("removal", "immediate removal"):
                    yield f"{event.device_id} was {before}, and its event says that it was {event.previous}"
                statuses[event.device_id] = event.status
            case TaskEnded():
                yield from _of_end(journal, event)
            case _:
                pass
        name = getattr(event, "task_id", None)
        if name is not None:
            published.setdefault(name, []).append(type(event).__name__)
    for name, events in published.items():
        counts = Counter(events)
        orderly = counts["TaskEnded"] == 1 and events[-1] == "TaskEnded"
        for later, earlier in (("TaskAcknowledged", "TaskSubmitted"), ("TaskAbandoned", "TaskSubmitted")):
            orderly &= later not in counts or (earlier in counts and events.index(earlier) < events.index(later))
        if not orderly:
            yield f"the events of {name} are {events}"


def _of_end(journal: Journal, event: TaskEnded) -> Iterator[str]:
    [ended] = journal.of("caller", "ends", event.task_id)
    expected = _OUTCOMES.get(ended.detail.partition(":")[0])
    if expected is not None and event.outcome not in expected:
        yield f"{event.task_id} ended as {ended.detail!r}, and the event says {event.outcome}"
