"""The plan of a run: its devices, requests and faults, which can be printed."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from galaxy_trio.constellation.task import OnCancel
from galaxy_trio.testing import Conditions

CallKind: TypeAlias = Literal["device", "constellation", "reservation", "information", "hold"]
DisturbanceKind: TypeAlias = Literal[
    "reset",
    "partition",
    "silence",
    "slow reader",
    "corruption",
    "shuffle",
    "pooled reset",
    "pooled partition",
    "pooled silence",
    "pooled close",
    "lost acknowledgement",
    "refusal of connections",
    "death of device",
    "leave of device",
    "death of server",
    "stop of server",
    "disconnect",
    "reconnect",
    "removal",
    "immediate removal",
]


@attrs.frozen
class DevicePlan:
    """A device of the run."""

    name: str
    platform: str
    feature: str
    slots: int


@attrs.frozen
class PlannedCall:
    """A call: a task, a request for information, or a reservation.

    Attributes:
        at: Seconds from the beginning of the run or of its `PlannedConnection`, or from the end of the previous task of its `TaskSeries`.
        seconds: Seconds for which the device works on it.
        size: Characters in the result.
        cancel_after: Seconds until the call is cancelled.
        priority: Its priority, if it waits for a slot.
    """

    at: float
    name: str
    kind: CallKind
    device: DevicePlan
    seconds: float
    size: int
    fails: bool
    on_cancel: OnCancel
    timeout: float
    cancel_after: float | None
    priority: int = 0

    def __str__(self) -> str:
        limits = f"within {self.timeout:g} s"
        if self.cancel_after is not None:
            limits += f", cancelled ({self.on_cancel}) after {self.cancel_after:g} s"
        task = f"works {self.seconds:g} s" + (" and fails" if self.fails else f", gives {self.size} characters")
        if self.kind == "information":
            task = "requests the information"
        elif self.kind == "hold":
            task = f"holds a slot for {self.seconds:g} s and runs nothing"
        limits += f", priority {self.priority}" if self.priority else ""
        return f"{self.at:8.3f} {self.name}: {self.kind} {self.device.name}: {task}, {limits}"


@attrs.frozen
class PlannedConnection:
    """A separate connection to a device, with several concurrent requests."""

    at: float
    name: str
    device: DevicePlan
    calls: tuple[PlannedCall, ...]

    def __str__(self) -> str:
        head = f"{self.at:8.3f} {self.name}: a connection to {self.device.name}"
        return "\n".join([head, *(f"         +{call}" for call in self.calls)])


@attrs.frozen
class Disturbance:
    """A fault, or a change of the configuration.

    Attributes:
        at: Seconds from the beginning of the run, or from the end of the previous task of its `TaskSeries`.
        seconds: Seconds until it is mended, if it can be.
        number: Selects one of several links or replies.
    """

    at: float
    kind: DisturbanceKind
    device: str
    seconds: float
    number: int

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.kind}: {self.device}, for {self.seconds:g} s, number {self.number}"


@attrs.frozen
class TaskSeries:
    """Consecutive tasks on one device. Connections are idle in the pauses, and may end there.

    Attributes:
        steps: The tasks, and the disturbances in the pause before a task or while it runs.
    """

    at: float
    name: str
    device: DevicePlan
    steps: tuple[PlannedCall | Disturbance, ...]

    def __str__(self) -> str:
        head = f"{self.at:8.3f} {self.name}: one after the other on {self.device.name}"
        return "\n".join([head, *(f"         +{step}" for step in self.steps)])


Step: TypeAlias = PlannedCall | PlannedConnection | TaskSeries | Disturbance


@attrs.frozen
class Plan:
    """The plan of a run.

    Attributes:
        keepalive_expiry: Seconds for which the constellation keeps an idle connection.
        dishonest: Percentage of the server's messages that are invalid, duplicated, repeated later, or lost.
        closes_at: The time at which the constellation is closed; None to close it when everything has ended.
        drain: Seconds for which tasks may continue then.
    """

    seed: int
    devices: tuple[DevicePlan, ...]
    conditions: Conditions
    max_concurrent_tasks: int | None
    max_queued: int
    keepalive_expiry: float
    dishonest: int
    closes_at: float | None
    drain: float
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}"]
        lines += [f"{each.name}: {each.platform}, {each.feature}, {each.slots} slots" for each in self.devices]
        lines.append(f"{self.conditions}")
        lines.append(
            f"at most {self.max_concurrent_tasks} at a time, {self.max_queued} in a queue, idle connections kept for "
            f"{self.keepalive_expiry:g} s, {self.dishonest} % of replies spoiled, closed at {self.closes_at} with {self.drain:g} s of drain"
        )
        return "\n".join([*lines, *map(str, self.steps)])

    @property
    def disturbances(self) -> list[Disturbance]:
        """All faults and changes."""
        return [step for step in self._all_steps if isinstance(step, Disturbance)]

    @property
    def calls(self) -> list[PlannedCall]:
        """All calls."""
        return [step for step in self._all_steps if isinstance(step, PlannedCall)] + self.separate_calls

    @property
    def separate_calls(self) -> list[PlannedCall]:
        """The calls on connections of their own, which do not use the constellation."""
        return [call for step in self.steps if isinstance(step, PlannedConnection) for call in step.calls]

    @property
    def _all_steps(self) -> list[Step]:
        in_series = [each for step in self.steps if isinstance(step, TaskSeries) for each in step.steps]
        return [*self.steps, *in_series]

    def has(self, *kinds: DisturbanceKind) -> bool:
        """Whether the plan contains any of these disturbances."""
        return any(step.kind in kinds for step in self.disturbances)
