"""What the journal of a run must show, whatever went wrong in it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from galaxy_trio.device_events import StatusChanged, TaskEnded, TaskOutcome
from simulation.plan import Ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from galaxy_trio.device_events import DeviceStatus
    from simulation.journal import Entry, Journal
    from simulation.plan import Plan, What

_OF_DEVICES: Final[frozenset[What]] = frozenset(
    {"death of device", "leave of device", "disconnect", "reconnect", "removal", "removal at once"}
)
"""What leaves the way between a talk and the server as it is."""
_SOON: Final = 0.01
"""Seconds for what takes no time: tasks have their turns one after the other."""
_LONGEST: Final = 100.0
"""Seconds that a task may run."""
_SLOW: Final = 1e6
"""Bytes a second: below that, results delay each other by more than is reckoned with."""


def broken_promises(plan: Plan, journal: Journal) -> list[str]:
    """What was promised and is not so, in words."""
    return [*_Requests(plan, journal).problems(), *_of_events(plan, journal), *_of_slots(plan, journal)]


class _Requests:
    """Each request ended once and rightly, and its task ran once at most."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self._plan = plan
        self._journal = journal
        self._talked = {ask.name for ask in plan.asks} - {step.name for step in plan.steps if isinstance(step, Ask)}
        self._changed = plan.has("corruption")
        # Errors name no request: their order tells whose they are, and this server does not keep to it.
        self._disordered = self._changed or bool(plan.dishonest) or plan.has("shuffle")
        self._trouble_at = self._first_trouble(frozenset())
        self._way_trouble_at = self._first_trouble(_OF_DEVICES)
        conditions = plan.conditions
        self._carriage = 6 * (conditions.latency + conditions.jitter) + 2e6 / conditions.bandwidth + _SOON
        self._judges: dict[str, Callable[[Ask, Entry, Entry], str | None]] = {
            "completed": self._completed,
            "completed with": self._completed_with_another_result,
            "failed": self._failed,
            "informed": self._informed,
            "cancelled": self._cancelled,
            "RequestTimeout": self._timed_out,
            "RequestRejected": self._rejected,
            "InvalidMessage": self._invalid,
            "QueueFull": self._queue_full,
            "NoSuchDevice": self._no_such_device,
            "ClosedResourceError": self._closed,
            "ConnectionLost": self._lost,
        }

    def _first_trouble(self, harmless: frozenset[What]) -> float:
        if self._plan.dishonest:
            return 0.0
        times = [step.at for step in self._plan.disturbances if step.what not in harmless]
        return min([*times, math.inf if self._plan.closes_at is None else self._plan.closes_at])

    def problems(self) -> Iterator[str]:
        for ask in self._plan.asks:
            asked = self._journal.of("caller", "asks", ask.name)
            ended = self._journal.of("caller", "ends", ask.name)
            if len(asked) != len(ended):
                yield f"{ask.name} was asked {len(asked)} times and ended {len(ended)} times"
            elif asked:
                word = ended[0].detail.partition(":")[0].partition(" {")[0]
                judge = self._judges.get(word, self._no_way_to_end)
                problem = judge(ask, asked[0], ended[0])
                if problem:
                    yield f"{ask.name} ended as {ended[0].detail!r}: {problem}"
            yield from self._of_work(ask)

    def _of_work(self, ask: Ask) -> Iterator[str]:
        for who in ("device", "server"):
            begun = len(self._journal.of(who, "begins", ask.name))
            if begun > 1:
                yield f"{ask.name} was begun {begun} times by the {who}"
            if begun != len(self._journal.of(who, "ends", ask.name)):
                yield f"{ask.name} was begun by the {who}, and never ended"

    # ---- one way to end each

    def _no_way_to_end(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del ask, asked, ended
        return "that is no way to end"

    def _completed(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del asked
        done = [each for each in self._journal.of("device", "ends", ask.name) if each.detail == "done"]
        return None if any(each.at <= ended.at for each in done) else "the device has not done it"

    def _completed_with_another_result(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del ask, asked, ended
        return None if self._changed else "that is not its result"

    def _informed(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del asked, ended
        return None if ask.way == "information" else "it was a task"

    def _failed(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del asked
        if self._trouble_at <= ended.at:
            return None
        return None if ask.fails else "nothing went wrong"

    def _cancelled(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        if ask.cancel_after is None:
            return "nobody cancelled it"
        if ended.at < asked.at + ask.cancel_after - 1e-6:
            return "that was too early"
        return self._not_stopped(ask, ended)

    def _timed_out(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        if ended.at < asked.at + ask.timeout - 1e-6:
            return "that was too early"
        return self._not_stopped(ask, ended) or self._not_told(ask, asked, ended)

    def _not_stopped(self, ask: Ask, ended: Entry) -> str | None:
        """The server has been told, and its device too, as soon as the network has carried it there."""
        soon = ended.at + self._carriage
        if ask.name in self._talked or ask.on_cancel != "stop" or self._trouble_at < soon:
            return None
        late = [entry for entry in self._journal.of("device", "ends", ask.name) if entry.at > soon]
        return f"the device went on until {late[0].at}" if late else None

    def _not_told(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        """What the server had to tell of it has come, unless something is wrong with the way."""
        if self._plan.conditions.bandwidth < _SLOW:
            return None
        results = [each.at for each in self._journal.of("server", "ends", ask.name) if each.detail != "cancelled"]
        if results and asked.at <= results[0] and results[0] + self._carriage < min(ended.at, self._way_trouble_at):
            return f"the server had its end at {results[0]}"
        if ask.name not in self._talked or asked.at + self._carriage > min(ended.at, self._way_trouble_at):
            return None
        if ask.way == "information":
            return "the server has answered"
        begun = self._journal.of("server", "begins", ask.name)
        return None if begun else "the server has refused it, or never heard of it"

    def _rejected(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del asked
        if self._journal.of("device", "begins", ask.name) and not self._disordered:
            return "the device has begun it"
        return "nothing went wrong" if self._trouble_at > ended.at else None

    def _invalid(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del ask, asked, ended
        return None if self._changed or self._plan.dishonest else "no reply was broken"

    def _queue_full(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del asked, ended
        if self._plan.max_queued > len(self._plan.asks):
            return "there are not as many requests"
        return self._begun(ask)

    def _no_such_device(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del asked, ended
        if not self._plan.has("removal", "removal at once"):
            return "no device was removed"
        return self._begun(ask)

    def _begun(self, ask: Ask) -> str | None:
        return "the device has begun it" if self._journal.of("device", "begins", ask.name) else None

    def _closed(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del asked
        closes = self._journal.of("world", "closes")
        if closes and closes[0].at <= ended.at:
            return None
        # A device that was removed is closed for who asks what is known of it.
        removed = self._plan.has("removal", "removal at once") and ask.way == "information"
        return None if removed else "nothing was closed"

    def _lost(self, ask: Ask, asked: Entry, ended: Entry) -> str | None:
        del ask, asked
        return "nothing went wrong" if self._trouble_at > ended.at else None


_OUTCOMES: Final = {
    "completed": {TaskOutcome.COMPLETED},
    "failed": {TaskOutcome.FAILED},
    "RequestRejected": {TaskOutcome.REJECTED},
    "ConnectionLost": {TaskOutcome.LOST},
}


def _of_events(plan: Plan, journal: Journal) -> Iterator[str]:
    """Every task's events are in order, end once, and say the same as its caller was told; a device's statuses follow each other."""
    told: dict[str, list[str]] = {}
    statuses: dict[str, DeviceStatus] = {}
    for event in journal.events:
        match event:
            case StatusChanged():
                before = statuses.get(event.device_id, event.previous)
                if event.previous is not before and not plan.has("removal", "removal at once"):
                    yield f"{event.device_id} was {before}, and is said to have been {event.previous}"
                statuses[event.device_id] = event.status
            case TaskEnded():
                yield from _of_end(journal, event)
            case _:
                pass
        name = getattr(event, "task_id", None)
        if name is not None:
            told.setdefault(name, []).append(type(event).__name__)
    for name, events in told.items():
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


def _of_slots(plan: Plan, journal: Journal) -> Iterator[str]:
    """No device has more tasks at once than slots.

    Those that may be abandoned share a connection, which may go before the server has noticed: they count while nothing goes wrong.
    """
    asks = {step.name: step for step in plan.steps if isinstance(step, Ask)}
    slots = {device.name: device.slots for device in plan.devices}
    running: dict[str, set[str]] = {name: set() for name in slots}
    trouble_at = 0.0 if plan.dishonest else min((step.at for step in plan.disturbances), default=math.inf)
    for entry in journal.entries:
        if entry.who != "server" or entry.name not in asks:
            continue
        if entry.what == "ends":
            for each in running.values():
                each.discard(entry.name)
        elif asks[entry.name].on_cancel == "stop" or entry.at + _LONGEST < trouble_at:
            running[entry.detail].add(entry.name)
            if len(running[entry.detail]) > slots[entry.detail]:
                yield f"{sorted(running[entry.detail])} ran at once on {entry.detail}, which has {slots[entry.detail]} slots"
