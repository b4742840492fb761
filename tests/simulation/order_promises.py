"""The promise of the order in which tasks get their slots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.simulation.slot_promises import times_of_submission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.journal import Journal
    from tests.simulation.plan import Plan


def broken_promises_of_order(plan: Plan, journal: Journal) -> Iterator[str]:
    """On a device with one slot, a task that waits for it is sent before tasks of a lower priority, and before later ones of its own.

    Judged when a task ran on the device while the waiting one was accepted: what was sent after that one got the slot later.
    """
    if plan.has("removal", "immediate removal"):
        # A device that was added again has other slots than the one that its last task still holds.
        return
    separate = {call.name for call in plan.separate_calls}
    calls = {call.name: call for call in plan.calls if call.name not in separate}
    order = [entry.name for entry in journal.of("caller", "calls")]
    accepted = {entry.name: entry.at for entry in journal.of("caller", "calls")}
    ended = {entry.name: entry.at for entry in journal.of("caller", "ends")}
    released = {entry.name: entry.at for entry in journal.of("event", "TaskEnded")}
    sent = times_of_submission(journal)
    on_device: dict[str, list[tuple[float, str]]] = {}
    for name, times in sent.items():
        for at, device_id in times:
            on_device.setdefault(device_id, []).append((at, name))
    for device in plan.devices:
        history = sorted(on_device.get(device.name, []))
        for waiting in calls.values():
            if (
                device.slots != 1
                or waiting.device != device
                or waiting.kind != "device"
                or waiting.name not in accepted
            ):
                continue
            since = accepted[waiting.name]
            until = min([ended.get(waiting.name, math.inf), *(at for at, _ in sent.get(waiting.name, []))])
            before = [name for at, name in history if at <= since]
            if not before or released.get(before[-1], math.inf) <= since:
                # The slot was free, or a task had it that was not sent.
                continue
            for at, name in history:
                other = calls[name]
                is_later = other.priority == waiting.priority and order.index(name) > order.index(waiting.name)
                if (
                    since < at < until
                    and other.kind != "reservation"
                    and (other.priority < waiting.priority or is_later)
                ):
                    yield f"{name} was sent to {device.name} at {at}, before {waiting.name}, which precedes it"
