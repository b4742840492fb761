"""A device as the scheduler knows it: its state, its slots and the queues that it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from galaxy_trio.constellation.systems import is_system

if TYPE_CHECKING:
    from galaxy_trio.daemon.requirement_queue import RequirementQueue
    from galaxy_trio.daemon.store.records import Requirement


@attrs.frozen
class DeviceState:
    """The part of a device's state that the scheduler needs.

    Attributes:
        connected: Whether it could run a task now.
        usable: Whether a task may wait for it; `False` if the supervisor has given up reconnecting.
        known: Whether its information has arrived; `os` and `capabilities` may be incomplete before.
        os: Its operating system.
        capabilities: Its capabilities.
    """

    connected: bool
    usable: bool
    known: bool
    os: str | None
    capabilities: frozenset[str]

    def fits(self, requirement: Requirement) -> bool:
        """Whether its operating system and capabilities meet a requirement. The device's name is not compared."""
        return is_system(self.os, requirement.os) and self.capabilities.issuperset(requirement.capabilities)

    def could_fit(self, requirement: Requirement) -> bool:
        """Whether it fits, or may still turn out to fit when its information arrives."""
        if self.known:
            return self.fits(requirement)
        return self.os is None or is_system(self.os, requirement.os)


class DeviceSlots:
    """The slots of a device.

    Attributes:
        device_id: The device's name.
        size: The number of slots.
        taken: The number of slots that are in use.
        state: The last reported state of the device.
        queues: The queues that the device serves, by requirement; empty while it is not connected.
    """

    def __init__(self, device_id: str, size: int, state: DeviceState) -> None:
        self.device_id = device_id
        self.size = size
        self.taken: int = 0
        self.state = state
        self.queues: dict[Requirement, RequirementQueue] = {}

    @property
    def has_room(self) -> bool:
        """Whether the device is connected and has a free slot."""
        return self.state.connected and self.taken < self.size

    def can_run(self, requirement: Requirement) -> bool:
        """Whether a task with this requirement names this device, or accepts any and this one fits."""
        return requirement.device == self.device_id or (requirement.device is None and self.state.fits(requirement))

    def may_run(self, requirement: Requirement) -> bool:
        """Whether a task with this requirement may wait for this device."""
        if requirement.device is None:
            return self.state.usable and self.state.could_fit(requirement)
        return requirement.device == self.device_id and self.state.usable

    def first(self) -> RequirementQueue | None:
        """The queue with the first task, which the device has to serve next; `None` without queues."""
        return min(self.queues.values(), key=lambda queue: queue.next_rank, default=None)
