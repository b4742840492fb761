"""Makes the plan of a run from a seed."""

from __future__ import annotations

from random import Random
from typing import Final

import attrs

from galaxy_trio.testing import Conditions
from tests.simulation.plan import (
    CallKind,
    DevicePlan,
    Disturbance,
    DisturbanceKind,
    Plan,
    PlannedCall,
    PlannedConnection,
    Step,
    TaskSeries,
)

_OF_LINKS: Final[tuple[DisturbanceKind, ...]] = (
    "reset",
    "partition",
    "silence",
    "slow reader",
    "corruption",
    "shuffle",
)
_OF_ENDS: Final[tuple[DisturbanceKind, ...]] = (
    "refusal of connections",
    "death of device",
    "leave of device",
    "death of server",
    "stop of server",
)
_OF_POOL: Final[tuple[DisturbanceKind, ...]] = (
    "pooled reset",
    "pooled partition",
    "pooled silence",
    "pooled silence",
    "pooled close",
)
_UNSEEN: Final[tuple[DisturbanceKind, ...]] = ("pooled partition", "pooled silence")
_OF_CONFIG: Final[tuple[DisturbanceKind, ...]] = ("disconnect", "reconnect", "removal", "immediate removal")


def make_plan(seed: int) -> Plan:
    """Make the plan of a seed."""
    random = Random(f"plan {seed}")
    devices = tuple(
        DevicePlan(
            f"d{number}",
            random.choice(["linux", "linux", "windows"]),
            random.choice(["cli", "gui"]),
            random.choice([1, 1, 1, 2, 3]),
        )
        for number in range(random.choice([1, 1, 1, 2, 2, 3, 4, 6, 10, 20]))
    )
    span = random.choice([1.0, 10.0, 10.0, 60.0])
    steps: list[Step] = []
    make = _StepMaker(random, devices, span)
    steps += [make.call(span) for _ in range(random.randint(2, 10 + 2 * len(devices)))]
    for _ in range(random.choice([0, 0, 1, 2, 3])):
        steps += make.connection()
    if random.random() < 0.4:
        steps += make.handover()
    keepalive_expiry = random.choice([0.0, 0.2, 5.0, 5.0, 5.0, 100.0])
    for _ in range(random.choice([0, 1, 1, 2])):
        steps.append(make.series(keepalive_expiry))
    if random.random() < 0.75:
        steps += [make.disturbance() for _ in range(random.choice([1, 1, 2, 3, 5, 8]))]
    steps.sort(key=lambda step: step.at)
    return Plan(
        seed,
        devices,
        Conditions(
            latency=random.choice([0.0, 0.001, 0.02, 0.3]),
            jitter=random.choice([0.0, 0.0, 0.01]),
            bandwidth=random.choice([float("inf"), float("inf"), 1e6, 2e4]),
        ),
        max_concurrent_tasks=random.choice([None, None, None, 1, 3]),
        max_queued=random.choice([1000, 1000, 1000, 2]),
        keepalive_expiry=keepalive_expiry,
        dishonest=random.choice([0, 0, 0, 0, 3, 15]),
        closes_at=random.uniform(0, span) if random.random() < 0.15 else None,
        drain=random.choice([0.0, 0.0, 3.0]),
        steps=tuple(steps),
    )


class _StepMaker:
    def __init__(self, random: Random, devices: tuple[DevicePlan, ...], span: float) -> None:
        self._random = random
        self._devices = devices
        self._span = span
        self._count = 0
        # Another source: the rest of the plan stays what it was without priorities.
        self._priorities = Random(f"priorities {random.getstate()}")
        # Often all callers want the same device: most faults concern queues.
        self._wanted = devices[:1] if random.random() < 0.4 else devices

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def call(self, span: float) -> PlannedCall:
        random = self._random
        kind: CallKind = random.choice(
            ["device", "device", "constellation", "constellation", "reservation", "information"]
        )
        return PlannedCall(
            at=round(random.uniform(0, span), 3) if random.random() < 0.7 else 0.0,
            name=self._name("r"),
            kind=kind if random.random() < 0.8 else "information",
            device=random.choice(self._wanted),
            seconds=random.choice([0.0, 0.0, 0.01, 0.5, 2.0, 8.0]),
            size=random.choice([0, 10, 10, 1000, 100_000]),
            fails=random.random() < 0.1,
            on_cancel="stop" if random.random() < 0.6 else "abandon",
            timeout=random.choice([0.5, 5.0, 30.0, 60.0, 60.0]),
            cancel_after=self._cancel_after(),
            priority=self._priorities.choice([0, 0, 0, -5, 5]),
        )

    def _cancel_after(self) -> float | None:
        # Often immediately or while little else happens: cancellations between two steps find the most bugs.
        random = self._random
        if random.random() < 0.6:
            return None
        return random.choice([0.0, random.uniform(0, 0.01), random.uniform(0, 1), random.uniform(0, 10)])

    def connection(self) -> list[Step]:
        """Make a connection with its requests, during which the device may leave."""
        random = self._random
        # In bursts: requests in flight at the same time can be confused.
        bursts = random.sample([0.0, random.uniform(0, 1), 1.2, 1.2, 3.5], random.randint(1, 4))
        calls = [attrs.evolve(self.call(0.0), at=random.choice(bursts)) for _ in range(random.randint(2, 10))]
        dies = random.random() < 0.5
        if dies:
            # The server refuses some of the last burst, and answers the others.
            calls += [attrs.evolve(self.call(0.0), at=1.2, cancel_after=None) for _ in range(4)]
        planned = PlannedConnection(
            round(random.uniform(0, self._span), 3),
            self._name("t"),
            random.choice(self._devices),
            tuple(sorted(calls, key=lambda call: call.at)),
        )
        if not dies:
            return [planned]
        at = round(planned.at + random.uniform(0.6, 1.2), 3)
        return [planned, Disturbance(at, "death of device", planned.device.name, random.choice([1.0, 10.0]), 0)]

    def handover(self) -> list[PlannedCall]:
        """Make slots that are released in the step in which the waiting calls are cancelled."""
        random = self._random
        device = random.choice(self._wanted)
        at, seconds = round(random.uniform(0, self._span), 3), random.choice([0.5, 2.0])
        call = attrs.evolve(self.call(0.0), at=at, device=device, seconds=seconds, cancel_after=None)
        holders = [attrs.evolve(call, name=self._name("r"), kind="hold") for _ in range(device.slots)]
        waiting = [attrs.evolve(call, name=self._name("r"), kind="device", cancel_after=seconds) for _ in range(2)]
        return holders + waiting

    def series(self, keepalive_expiry: float) -> TaskSeries:
        """Make consecutive tasks with pauses around the times at which a connection becomes stale or expires."""
        random = self._random
        device = random.choice(self._wanted)
        steps: list[PlannedCall | Disturbance] = [self._in_series(device, 0.0)]
        calm = random.random() < 0.3
        for _ in range(random.randint(1, 5)):
            pause = self._pause(keepalive_expiry)
            chance = 1.0 if calm else random.random()
            if chance < 0.5:
                steps.append(self._in_pause(random.choice(_OF_POOL), device, pause))
            elif chance < 0.6:
                steps.append(self._in_pause(random.choice([*_OF_ENDS, *_OF_CONFIG]), device, pause))
            elif chance < 0.65:
                steps += self._unacknowledged(device)
            elif chance < 0.7:
                steps += self._cut_off(device)
            elif chance < 0.85:
                steps += self._silenced(device)
            elif chance < 0.92:
                steps += self._stopped(device)
            steps.append(self._in_series(device, pause))
        return TaskSeries(round(random.uniform(0, self._span), 3), self._name("s"), device, tuple(steps))

    def _pause(self, keepalive_expiry: float) -> float:
        random = self._random
        around = random.choice([0.5, 0.99, 1.0, 1.01, keepalive_expiry, keepalive_expiry + 0.001])
        pause = random.choice([0.0, random.uniform(0, 1), random.uniform(1, 5), random.uniform(1, 5), around])
        return round(min(pause, 22.0), 3)

    def _in_pause(self, kind: DisturbanceKind, device: DevicePlan, pause: float) -> Disturbance:
        random = self._random
        at = random.choice([0.0, pause, random.uniform(0, pause), max(0.0, pause - random.uniform(0.9, 1.2))])
        return Disturbance(
            at=round(at, 3),
            kind=kind,
            device=device.name,
            seconds=random.choice([0.0, 0.1, 2.0, 45.0]),
            number=random.randrange(10),
        )

    def _in_series(self, device: DevicePlan, at: float) -> PlannedCall:
        random = self._random
        return attrs.evolve(
            self.call(0.0),
            at=at,
            kind=random.choice(["device", "device", "device", "reservation"]),
            device=device,
            on_cancel="stop",
            cancel_after=self._cancel_after() if random.random() < 0.5 else None,
        )

    def _unacknowledged(self, device: DevicePlan) -> list[PlannedCall | Disturbance]:
        """Make a task whose acknowledgement is lost."""
        task = attrs.evolve(self._in_series(device, 0.0), seconds=0.0, size=10, timeout=5.0, cancel_after=None)
        return [Disturbance(0.0, "lost acknowledgement", device.name, 0.0, 0), task]

    def _silenced(self, device: DevicePlan) -> list[PlannedCall | Disturbance]:
        """Make a task after a pause in which the connection became silent, which no socket shows."""
        pause = self._random.choice([0.5, 1.1, 2.0, 4.0])
        timeout = self._random.choice([5.0, 5.0, 60.0])
        task = attrs.evolve(self._in_series(device, pause), seconds=0.0, size=10, timeout=timeout, cancel_after=None)
        return [Disturbance(0.0, self._random.choice(_UNSEEN), device.name, 45.0, 0), task]

    def _stopped(self, device: DevicePlan) -> list[PlannedCall | Disturbance]:
        """Make a long task whose device is disconnected or removed while it runs."""
        kind: DisturbanceKind = self._random.choice(["disconnect", "immediate removal"])
        task = attrs.evolve(self._in_series(device, 0.0), seconds=8.0, timeout=60.0, cancel_after=None)
        return [Disturbance(1.5, kind, device.name, 0.1, 1), task]

    def _cut_off(self, device: DevicePlan) -> list[PlannedCall | Disturbance]:
        """Make a task that is stopped while the server cannot notice it."""
        kind = self._random.choice(_UNSEEN)
        task = attrs.evolve(self._in_series(device, 0.0), seconds=8.0, timeout=60.0, cancel_after=4.0)
        return [Disturbance(2.0, kind, device.name, 45.0, 0), task]

    def disturbance(self) -> Disturbance:
        random = self._random
        kinds = random.choice([_OF_LINKS, _OF_LINKS, _OF_ENDS, _OF_CONFIG])
        return Disturbance(
            at=round(random.uniform(0, self._span * 1.2), 3),
            kind=random.choice(kinds),
            device=random.choice(self._wanted).name,
            seconds=random.choice([0.0, 0.1, 2.0, 10.0, 45.0]),
            number=random.randrange(10),
        )
