"""The open sockets of this process."""

from __future__ import annotations

import os
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


def open_sockets() -> set[str]:
    """Return a unique name for each open socket; an empty set if the system does not list them."""
    names: set[str] = set()
    for descriptor in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            name = os.readlink(descriptor)
        except OSError:
            # It was the descriptor of the listing itself.
            continue
        if name.startswith("socket:"):
            names.add(name)
    return names
