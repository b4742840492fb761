"""What happens in a run: all of it follows from a seed, and can be read."""

from __future__ import annotations

from random import Random
from typing import Final, Literal, TypeAlias

import attrs

from galaxy_trio.task import OnCancel
from galaxy_trio.testing import Conditions

Way: TypeAlias = Literal["device", "constellation", "reservation", "information"]
What: TypeAlias = Literal[
    "reset",
    "partition",
    "silence",
    "slow reader",
    "corruption",
    "shuffle",
    "refusal of connections",
    "death of device",
    "leave of device",
    "death of server",
    "stop of server",
    "disconnect",
    "reconnect",
    "removal",
    "removal at once",
]

_OF_LINKS: Final[tuple[What, ...]] = ("reset", "partition", "silence", "slow reader", "corruption", "shuffle")
_OF_ENDS: Final[tuple[What, ...]] = (
    "refusal of connections",
    "death of device",
    "leave of device",
    "death of server",
    "stop of server",
)
_OF_CONFIG: Final[tuple[What, ...]] = ("disconnect", "reconnect", "removal", "removal at once")


@attrs.frozen
class DevicePlan:
    """A device."""

    name: str
    platform: str
    feature: str
    slots: int


@attrs.frozen
class Ask:
    """A request of somebody.

    Attributes:
        at: Seconds from the beginning of the run, or of the talk that it is part of.
        seconds: How long the device is to work on it.
        size: Characters of its result.
        cancel_after: Seconds until its caller is cancelled.
    """

    at: float
    name: str
    way: Way
    device: DevicePlan
    seconds: float
    size: int
    fails: bool
    on_cancel: OnCancel
    timeout: float
    cancel_after: float | None

    def __str__(self) -> str:
        limits = f"within {self.timeout:g} s"
        if self.cancel_after is not None:
            limits += f", cancelled ({self.on_cancel}) after {self.cancel_after:g} s"
        task = f"works {self.seconds:g} s" + (" and fails" if self.fails else f", gives {self.size} characters")
        if self.way == "information":
            task = "asks what the server knows"
        return f"{self.at:8.3f} {self.name}: {self.way} {self.device.name}: {task}, {limits}"


@attrs.frozen
class Talk:
    """A connection of its own to a device, on which several requests are made side by side."""

    at: float
    name: str
    device: DevicePlan
    asks: tuple[Ask, ...]

    def __str__(self) -> str:
        head = f"{self.at:8.3f} {self.name}: a connection to {self.device.name}"
        return "\n".join([head, *(f"         +{ask}" for ask in self.asks)])


@attrs.frozen
class Disturbance:
    """Something goes wrong, or is changed.

    Attributes:
        seconds: Until it is mended, where it can be.
        number: Which of several: links, replies.
    """

    at: float
    what: What
    device: str
    seconds: float
    number: int

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.what}: {self.device}, for {self.seconds:g} s, number {self.number}"


Step: TypeAlias = Ask | Talk | Disturbance


@attrs.frozen
class Plan:
    """A run.

    Attributes:
        dishonest: How many of a hundred messages of the server are broken, sent twice or lost.
        closes_at: When the constellation is closed, whatever goes on; None for when all is done.
        drain: How long it lets tasks go on then.
        shown: Which promises can be held: those are what the faults leave.
    """

    seed: int
    devices: tuple[DevicePlan, ...]
    conditions: Conditions
    max_concurrent_tasks: int | None
    max_queued: int
    dishonest: int
    closes_at: float | None
    drain: float
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}"]
        lines += [f"{each.name}: {each.platform}, {each.feature}, {each.slots} slots" for each in self.devices]
        lines.append(f"{self.conditions}")
        lines.append(
            f"at most {self.max_concurrent_tasks} at once, {self.max_queued} in a queue, {self.dishonest} % of replies spoiled, "
            f"closed at {self.closes_at} with {self.drain:g} s of drain"
        )
        return "\n".join([*lines, *map(str, self.steps)])

    @property
    def disturbances(self) -> list[Disturbance]:
        """What goes wrong."""
        return [step for step in self.steps if isinstance(step, Disturbance)]

    @property
    def asks(self) -> list[Ask]:
        """All that is asked for."""
        talked = [ask for step in self.steps if isinstance(step, Talk) for ask in step.asks]
        return [step for step in self.steps if isinstance(step, Ask)] + talked

    def has(self, *whats: What) -> bool:
        """Whether any of this happens."""
        return any(step.what in whats for step in self.disturbances)


def make_plan(seed: int) -> Plan:
    """The run of a seed."""
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
    steps += [make.ask(span) for _ in range(random.randint(2, 10 + 2 * len(devices)))]
    for _ in range(random.choice([0, 0, 1, 2, 3])):
        steps += make.talk()
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
        # Often all want the same: queues are where most can go wrong.
        self._wanted = devices[:1] if random.random() < 0.4 else devices

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def ask(self, span: float) -> Ask:
        random = self._random
        way: Way = random.choice(["device", "device", "constellation", "constellation", "reservation", "information"])
        return Ask(
            at=round(random.uniform(0, span), 3) if random.random() < 0.7 else 0.0,
            name=self._name("r"),
            way=way if random.random() < 0.8 else "information",
            device=random.choice(self._wanted),
            seconds=random.choice([0.0, 0.0, 0.01, 0.5, 2.0, 8.0]),
            size=random.choice([0, 10, 10, 1000, 100_000]),
            fails=random.random() < 0.1,
            on_cancel="stop" if random.random() < 0.6 else "abandon",
            timeout=random.choice([0.5, 5.0, 30.0, 60.0, 60.0]),
            cancel_after=self._cancel_after(),
        )

    def _cancel_after(self) -> float | None:
        # Often at once, or while little else happens: what is cancelled between two steps is what breaks.
        random = self._random
        if random.random() < 0.6:
            return None
        return random.choice([0.0, random.uniform(0, 0.01), random.uniform(0, 1), random.uniform(0, 10)])

    def talk(self) -> list[Step]:
        """A connection with its requests, in the midst of which the device may go."""
        random = self._random
        # In bursts: what is on its way together is what can be mistaken for each other.
        bursts = random.sample([0.0, random.uniform(0, 1), 1.2, 1.2, 3.5], random.randint(1, 4))
        asks = [attrs.evolve(self.ask(0.0), at=random.choice(bursts)) for _ in range(random.randint(2, 10))]
        dies = random.random() < 0.5
        if dies:
            # The server refuses some of the last burst, and answers the rest.
            asks += [attrs.evolve(self.ask(0.0), at=1.2, cancel_after=None) for _ in range(4)]
        talk = Talk(
            round(random.uniform(0, self._span), 3),
            self._name("t"),
            random.choice(self._devices),
            tuple(sorted(asks, key=lambda ask: ask.at)),
        )
        if not dies:
            return [talk]
        at = round(talk.at + random.uniform(0.6, 1.2), 3)
        return [talk, Disturbance(at, "death of device", talk.device.name, random.choice([1.0, 10.0]), 0)]

    def disturbance(self) -> Disturbance:
        random = self._random
        whats = random.choice([_OF_LINKS, _OF_LINKS, _OF_ENDS, _OF_CONFIG])
        return Disturbance(
            at=round(random.uniform(0, self._span * 1.2), 3),
            what=random.choice(whats),
            device=random.choice(self._wanted).name,
            seconds=random.choice([0.0, 0.1, 2.0, 10.0, 45.0]),
            number=random.randrange(10),
        )
