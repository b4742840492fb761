"""Names of operating systems: AIP's, and the common ones that mean the same."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_SEPARATORS: Final = re.compile(r"[\W_]+")
_NAMES: Final = {
    "darwin": ("mac", "macos", "macosx", "osx", "applemacos"),
    "windows": ("win", "win32", "win64", "windowsnt", "mswindows", "microsoftwindows"),
    "linux": ("linux2", "gnulinux"),
    "android": ("androidos",),
    "ios": ("iphoneos", "ipados"),
}
_UNKNOWN: Final = ("", "unknown")
_DISTRIBUTIONS: Final = ("centos", "debian", "fedora", "opensuse", "raspbian", "rhel", "suse", "ubuntu")
_FIRST_WORD: Final = re.compile(r"[a-z]*")
_COMMON: Final = {other: name for name, others in _NAMES.items() for other in (name, *others)}


@lru_cache(maxsize=256)
def system_name(name: str) -> str:
    """Return AIP's name for an operating system, such as ``darwin`` for ``macOS``; any other name is returned unchanged.

    Case, spaces and punctuation are ignored in common names.
    """
    return _COMMON.get(_SEPARATORS.sub("", name.casefold()), name)


def known_system(name: str | None) -> str | None:
    """Like `system_name`, also for the name of a version or a distribution of a device, such as ``Windows 11`` or ``Ubuntu``.

    Returns None for a name that says nothing, such as the original's ``unknown``.
    """
    if name is None or name.strip().casefold() in _UNKNOWN:
        return None
    common = system_name(name)
    if common in _NAMES:
        return common
    [word] = _FIRST_WORD.findall(name.strip().casefold())[:1]
    if word in _DISTRIBUTIONS or "linux" in name.casefold():
        return "linux"
    return _COMMON.get(word, name)


def is_system(name: str | None, required: str | None) -> bool:
    """Whether a device's operating system is the required one.

    Args:
        name: The device's; None if it is not known.
        required: The required one; None for any.
    """
    if required is None:
        return True
    return name is not None and system_name(name).casefold() == system_name(required).casefold()
