"""All devices that tasks may run on: those of this daemon as they are now, those of others as they were last reported.

Rule 10 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio
from cattrs import Converter

from galaxy_trio import DeviceProfile, DeviceStatistics, DeviceStatus, NoSuchDevice, unstructure_statistics
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.constellation.profile import profile_of
from galaxy_trio.constellation.requirements import Requirements
from galaxy_trio.daemon.device_slots import DeviceState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from galaxy_trio import Constellation, Device, DeviceConfig
    from galaxy_trio.daemon.store.records import Requirement

_MAX_REASONS: Final = 3
"""Devices of which a refusal gives the reason."""
_converter: Final = Converter()


@attrs.frozen
class RemoteDevice:
    """A device that this daemon does not own.

    Attributes:
        statistics: Its state as its owner last reported it; without an owner it is disconnected.
        known: Whether its information had arrived.
        owner: The name of the daemon that owns it; `None` while none does.
    """

    statistics: DeviceStatistics
    known: bool
    owner: str | None


def report_of(device: Device) -> str:
    """The state of a device as JSON, for the daemons that do not own it."""
    members = unstructure_statistics(device.statistics())
    return json.dumps({"known": device.profile.known, "statistics": members})


def remote_device(config: DeviceConfig, report: str | None, owner: str | None) -> RemoteDevice:
    """A device of another daemon.

    Args:
        config: Its configuration.
        report: What `report_of` has returned there, if any.
        owner: The name of its owner, if any.
    """
    if report is None:
        members: dict[str, object] = {}
        statistics = _never_connected(config)
    else:
        members = cast("dict[str, object]", json.loads(report))
        statistics = _converter.structure(members["statistics"], DeviceStatistics)
    if owner is None:
        problem = statistics.problem or "no daemon owns it at the moment"
        statistics = attrs.evolve(
            statistics,
            status=DeviceStatus.DISCONNECTED,
            running=0,
            idle_connections=0,
            problem=problem,
            connection=None,
        )
    return RemoteDevice(statistics, members.get("known") is True, owner)


def _never_connected(config: DeviceConfig) -> DeviceStatistics:
    profile = profile_of(config)
    return DeviceStatistics(
        device_id=config.device_id,
        status=DeviceStatus.DISCONNECTED,
        os=profile.os,
        capabilities=profile.capabilities,
        running=0,
        queued=0,
        idle_connections=0,
        connects=0,
        failures=0,
        problem=None,
        next_try=None,
        connected_since=None,
        last_heard=None,
        connection=None,
    )


@attrs.frozen
class _Candidate:
    """A device as the requirements of a task see it. A failure is the reason why none may wait for it."""

    profile: DeviceProfile
    failure: str | None


class Directory:
    """All devices, by name.

    Args:
        constellation: The devices that this daemon owns.
        name: The name of this daemon.
    """

    def __init__(self, constellation: Constellation, name: str) -> None:
        self._constellation = constellation
        self.name: Final = name
        self._remote: dict[str, RemoteDevice] = {}
        self.refresh: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
        """Reads the devices of a cluster again."""
        self.epochs: Mapping[str, int] = {}
        """The epoch in which this daemon owns each of its devices."""
        self.loaded: trio.Event = trio.Event()
        """Set when all devices are known for the first time."""
        self.changed: trio.Event = trio.Event()
        """Set when the devices of other daemons have changed; then it is replaced."""

    @property
    def own(self) -> Mapping[str, Device]:
        """The devices that this daemon owns."""
        return self._constellation.devices

    @property
    def names(self) -> Collection[str]:
        """The names of all devices."""
        return {**self.own, **self._remote}.keys()

    def set_remote(self, devices: Mapping[str, RemoteDevice]) -> None:
        """Replace the devices that this daemon does not own."""
        self._remote = dict(devices)
        self.loaded.set()
        self.changed.set()
        self.changed = trio.Event()

    def remote(self, name: str) -> RemoteDevice | None:
        """A device that this daemon does not own, if it is there."""
        return self._remote.get(name)

    def check(self, name: str) -> None:
        """Check that there is a device.

        Raises:
            NoSuchDevice: There is none.
        """
        if name not in self.own and name not in self._remote:
            raise NoSuchDevice(f"there is no device {name!r}{did_you_mean_or_known(name, self.names)}")

    def owner_of(self, name: str) -> str | None:
        """The name of the daemon that owns a device; `None` while none does."""
        return self.name if name in self.own else self._remote[name].owner

    def statistics(self) -> list[DeviceStatistics]:
        """The state of each device; those that this daemon owns come first."""
        remote = [device.statistics for name, device in self._remote.items() if name not in self.own]
        return [*(device.statistics() for device in self.own.values()), *remote]

    def state_of(self, name: str) -> DeviceState | None:
        """The state of a device for the scheduler; `None` if there is no such device."""
        device = self.own.get(name)
        if device is not None:
            profile, connected, failed = device.profile, device.connected, device.status is DeviceStatus.FAILED
        elif name in self._remote:
            remote = self._remote[name]
            profile, connected, failed = _profile_of(remote), False, remote.statistics.status is DeviceStatus.FAILED
        else:
            return None
        return DeviceState(
            connected=connected,
            usable=not failed,
            known=profile.known,
            os=profile.os,
            capabilities=frozenset(profile.capabilities),
        )

    def is_impossible(self, requirement: Requirement) -> bool:
        """Whether it is certain that no device meets a requirement, however long a task waits for one."""
        wanted = Requirements(requirement.os, requirement.capabilities)
        return requirement.device is None and not any(wanted.could_fit(found.profile) for found in self._candidates())

    def reason_to_fail(self, requirement: Requirement) -> str | None:
        """The reason why no device can run a task, as a sentence; `None` if a device may, now or later."""
        if requirement.device is not None:
            candidate = self._candidate(requirement.device)
            return f"device {requirement.device!r} was removed" if candidate is None else candidate.failure
        wanted = Requirements(requirement.os, requirement.capabilities)
        candidates = list(self._candidates())
        if not candidates:
            return "no device for this task: there are no devices"
        fitting = [candidate for candidate in candidates if wanted.could_fit(candidate.profile)]
        if not all(candidate.failure for candidate in fitting):
            return None
        reasons = [
            f"{candidate.profile.device_id!r} would fit, but was given up: {candidate.failure}"
            for candidate in fitting[:_MAX_REASONS]
        ]
        missing = "; ".join(reasons) or wanted.missing([candidate.profile for candidate in candidates])
        return f"no device for this task: {missing}"

    def _candidates(self) -> Iterator[_Candidate]:
        for name in self.names:
            candidate = self._candidate(name)
            if candidate is not None:
                yield candidate

    def _candidate(self, name: str) -> _Candidate | None:
        device = self.own.get(name)
        if device is not None:
            return _Candidate(device.profile, None if device.failure is None else str(device.failure))
        if name not in self._remote:
            return None
        remote = self._remote[name]
        is_failed = remote.statistics.status is DeviceStatus.FAILED
        return _Candidate(_profile_of(remote), (remote.statistics.problem or "it failed") if is_failed else None)


def _profile_of(remote: RemoteDevice) -> DeviceProfile:
    statistics = remote.statistics
    return DeviceProfile(statistics.device_id, statistics.os, statistics.capabilities, {}, known=remote.known)
