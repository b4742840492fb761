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
_COMMON: Final = {other: name for name, others in _NAMES.items() for other in (name, *others)}


@lru_cache(maxsize=256)
def system_name(name: str) -> str:
    """Return AIP's name for an operating system, such as ``darwin`` for ``macOS``; any other name is returned unchanged.

    Case, spaces and punctuation are ignored in common names.
    """
    return _COMMON.get(_SEPARATORS.sub("", name.casefold()), name)


def known_system(name: str | None) -> str | None:
    """Like `system_name`, and None for a name that says nothing, such as the original's ``unknown``."""
    return None if name is None or name.strip().casefold() in _UNKNOWN else system_name(name)


def is_system(name: str | None, required: str | None) -> bool:
    """Whether a device's operating system is the required one.

    Args:
        name: The device's; None if it is not known.
        required: The required one; None for any.
    """
    if required is None:
        return True
    return name is not None and system_name(name).casefold() == system_name(required).casefold()
