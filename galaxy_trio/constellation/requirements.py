"""Which device a task may run on, and what is missing when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.events import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from galaxy_trio.constellation.device import Device
    from galaxy_trio.constellation.profile import DeviceProfile


class Requirements:
    """What a device must be.

    Args:
        os: What it runs; capitals do not matter.
        capabilities: All that it must be able to do.
        where: Anything more; sees what is known of a device.
    """

    def __init__(
        self,
        os: str | None = None,
        capabilities: Iterable[str] = (),
        where: Callable[[DeviceProfile], bool] | None = None,
    ) -> None:
        self._os = os
        # A single name would be taken for its letters.
        self._capabilities = frozenset([capabilities] if isinstance(capabilities, str) else capabilities)
        self._where = where

    def fit(self, device: Device) -> bool:
        """Whether a device is that, as far as is known."""
        profile = device.profile
        return (
            self._is_os(profile.os)
            and self._capabilities.issubset(profile.capabilities)
            and (self._where is None or self._where(profile))
        )

    def could_fit(self, device: Device) -> bool:
        """Whether it is, or may turn out to be: one that has not been connected yet may have more to tell."""
        if device.profile.known:
            return self.fit(device)
        return device.config.os is None or self._is_os(device.config.os)

    def hope(self, devices: Iterable[Device]) -> Device | None:
        """A device that fits, or may turn out to, whether it is connected now or not; None when there is none."""
        return next((device for device in devices if self.may_be_met_by(device)), None)

    def may_be_met_by(self, device: Device) -> bool:
        """Whether a device is a hope."""
        return device._takes_tasks and self.could_fit(device)

    def missing(self, devices: Collection[Device]) -> str:
        """What none of the devices is, nor may turn out to be, when there is no `hope`."""
        if not devices:
            return "there are no devices"
        unusable = [device for device in devices if self.could_fit(device)]
        if unusable:
            return "; ".join(f"{device.device_id!r} would fit, and {_why_not(device)}" for device in unusable[:3])
        of_os = [device for device in devices if self._is_os(device.profile.os)]
        if not of_os:
            there = ", ".join(sorted({repr(device.profile.os) for device in devices if device.profile.os})) or "none"
            return f"none runs {self._os!r}; there are: {there}"
        whose = "none" if self._os is None else f"none that runs {self._os!r}"
        absent = self._capabilities.difference(*(device.profile.capabilities for device in of_os))
        if absent:
            return f"{whose} has {_listed(absent)}"
        if not any(self._capabilities.issubset(device.profile.capabilities) for device in of_os):
            return f"{whose} has all of {_listed(self._capabilities)}"
        able = f"{whose} with {_listed(self._capabilities)}" if self._capabilities else whose
        return f"{able} is what `where` asks for"

    def _is_os(self, os: str | None) -> bool:
        return self._os is None or (os is not None and os.casefold() == self._os.casefold())


def _listed(names: frozenset[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _why_not(device: Device) -> str:
    return f"was given up: {device.failure}" if device.status is DeviceStatus.FAILED else "was removed"
