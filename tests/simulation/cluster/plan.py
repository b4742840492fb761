"""What happens in a simulated cluster: its daemons, devices and clients, and the faults."""

from __future__ import annotations

from random import Random
from typing import Final

import attrs

LOSING: Final = ("kill", "cut off", "no renewals", "long outage", "reset", "death of server", "death of device")
"""Faults that may lose the tasks that run."""
HARMLESS: Final = ("stop", "drain", "short outage", "commits not done", "answers lost", "slow commits")
"""Faults by which no task may be lost, and none fail."""
_ENDLESS: Final = 1_000.0
"""Seconds of a task that ends only when it is cancelled."""


@attrs.frozen
class PlannedDevice:
    """A device."""

    name: str
    slots: int
    platform: str


@attrs.frozen
class PlannedTask:
    """A task of a client, who submits it some seconds after the one before.

    Attributes:
        name: Its request, and its idempotency key.
        seconds: How long its device works.
        fails: Whether its device fails then.
        cancel_after: When its client cancels it, if it does, in seconds after it was accepted.
    """

    name: str
    pause: float
    seconds: float
    fails: bool
    device: str | None
    os: str | None
    priority: int
    cancel_after: float | None


@attrs.frozen
class Fault:
    """A fault: what happens at a time, for how long.

    Attributes:
        daemon: The number of the daemon that it happens to, if it happens to one.
        number: Chooses what it happens to, otherwise.
    """

    at: float
    kind: str
    daemon: int
    seconds: float
    number: int


@attrs.frozen
class ClusterPlan:
    """The plan of a seed.

    Attributes:
        graphs: How many graphs each user submits; none in even seeds. What is in them, and how they are changed, follows from the seed.
    """

    seed: int
    daemons: int
    lease: float
    latency: float
    devices: tuple[PlannedDevice, ...]
    clients: tuple[tuple[PlannedTask, ...], ...]
    faults: tuple[Fault, ...]
    graphs: tuple[int, ...]

    @property
    def tasks(self) -> list[PlannedTask]:
        """The tasks of all clients."""
        return [task for tasks in self.clients for task in tasks]

    @property
    def may_lose(self) -> bool:
        """Whether running tasks may be lost, or fail, by the faults."""
        return any(fault.kind in LOSING for fault in self.faults)

    def has(self, *kinds: str) -> bool:
        """Whether faults of these kinds occur."""
        return any(fault.kind in kinds for fault in self.faults)

    def __str__(self) -> str:
        lines = [
            f"cluster {self.seed}: {self.daemons} daemons, lease {self.lease:.2f} s, latency {self.latency:.4f} s",
            *map(str, self.devices),
            *(f"client {number}: {task}" for number, tasks in enumerate(self.clients) for task in tasks),
            *map(str, self.faults),
            *(f"user {number} of graphs: {count}" for number, count in enumerate(self.graphs)),
        ]
        return "\n".join(lines)


def make_plan(seed: int) -> ClusterPlan:
    """Make the plan of a seed."""
    random = Random(f"cluster plan {seed}")
    lease = random.uniform(3, 6)
    daemons = random.randint(2, 4)
    devices = tuple(
        PlannedDevice(f"d{number}", random.randint(1, 2), random.choice(["linux", "windows"]))
        for number in range(random.randint(1, 6))
    )
    kinds = random.choice(
        [
            (),
            HARMLESS,
            ("stop", "stop", "slow commits", "drain"),
            ("kill", "cut off"),
            ("kill",),
            LOSING,
            LOSING + HARMLESS,
        ]
    )
    faults = [
        _make_fault(random, random.choice(kinds), daemons, lease) for _ in range(random.randint(1, 6) if kinds else 0)
    ]
    clients = tuple(
        tuple(_make_task(random, f"{client}-{number}", devices) for number in range(random.randint(1, 12)))
        for client in range(random.randint(1, 6))
    )
    has_graphs = bool(seed % 2)
    latency = random.choice([0.0, random.uniform(0, 0.02)])
    graphs = tuple(random.randint(1, 3) for _ in range(random.randint(2, 4) if has_graphs else 0))
    in_order = tuple(sorted(faults, key=lambda fault: fault.at))
    clients = clients[:1] if has_graphs else clients
    return ClusterPlan(seed, daemons, lease, latency, devices, clients, in_order, graphs)


def _make_fault(random: Random, kind: str, daemons: int, lease: float) -> Fault:
    seconds = {
        "cut off": random.uniform(0.2, 2.5) * lease,
        "no renewals": random.uniform(0.2, 2.5) * lease,
        "long outage": random.uniform(0.5, 2.5) * lease,
        # Repeated renewals and writes must find it over in time.
        "short outage": random.uniform(0, 0.3) * lease,
        "slow commits": random.uniform(0, 0.5) * lease,
    }.get(kind, random.uniform(0, 1.5) * lease)
    return Fault(random.uniform(0.5, 12), kind, random.randrange(daemons), seconds, random.randrange(1_000))


def _make_task(random: Random, name: str, devices: tuple[PlannedDevice, ...]) -> PlannedTask:
    device = random.choice(devices)
    chosen = random.random()
    is_endless = random.random() < 0.1
    is_cancelled = is_endless or random.random() < 0.2
    return PlannedTask(
        name,
        pause=random.choice([0.0, 0.0, 1.0, 2.0, 3.0]) * random.random(),
        seconds=_ENDLESS if is_endless else random.choice([0.0, 0.0, 0.2, 2.0, 8.0]) * random.random(),
        fails=random.random() < 0.1,
        device=device.name if chosen < 0.5 else None,
        os=device.platform if chosen > 0.8 else None,
        priority=random.choice([0, 0, 0, -5, 1, 100]),
        cancel_after=random.uniform(0, 5) if is_cancelled else None,
    )
