"""The requirements that a task has of its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.constellation.systems import is_system

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable

    from galaxy_trio.constellation.profile import DeviceProfile


class Requirements:
    """The properties that a device must have to run a task.

    Args:
        os: The operating system: AIP's name or a common one; case is ignored.
        capabilities: The capabilities, all of which the device must have.
        where: Any further condition on the device's profile.
    """

    def __init__(
        self,
        os: str | None = None,
        capabilities: Iterable[str] = (),
        where: Callable[[DeviceProfile], bool] | None = None,
    ) -> None:
        self._os = os
        # A single name would be split into its letters.
        self._capabilities = frozenset([capabilities] if isinstance(capabilities, str) else capabilities)
        self._where = where
        self.key: Hashable = self._os, self._capabilities, id(where)
        """Equal for equal requirements, while they are in use."""

    def fit(self, profile: DeviceProfile) -> bool:
        """Whether a device meets the requirements, as far as is known."""
        return (
            is_system(profile.os, self._os)
            and self._capabilities.issubset(profile.capabilities)
            and (self._where is None or self._where(profile))
        )

    def could_fit(self, profile: DeviceProfile) -> bool:
        """Whether a device meets the requirements, or may do so once the server has sent its information."""
        if profile.known:
            return self.fit(profile)
        return profile.os is None or is_system(profile.os, self._os)

    def missing(self, profiles: Collection[DeviceProfile]) -> str:
        """Describe the requirement that none of these devices meets, when none of them could fit."""
        of_os = [profile for profile in profiles if is_system(profile.os, self._os)]
        if not of_os:
            there = ", ".join(sorted({repr(profile.os) for profile in profiles if profile.os})) or "none"
            return f"none runs {self._os!r}; there are: {there}"
        subject = "none" if self._os is None else f"none that runs {self._os!r}"
        absent = self._capabilities.difference(*(profile.capabilities for profile in of_os))
        if absent:
            return f"{subject} has {_join(absent)}"
        if not any(self._capabilities.issubset(profile.capabilities) for profile in of_os):
            return f"{subject} has all of {_join(self._capabilities)}"
        with_capabilities = f" with {_join(self._capabilities)}" if self._capabilities else ""
        return f"{subject}{with_capabilities} satisfies `where`"


def _join(names: frozenset[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
