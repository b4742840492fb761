"""Which sockets this process has open."""

from __future__ import annotations

import os
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


def open_sockets() -> set[str]:
    """Each by a name of its own, which no other one gets; none where the system does not tell."""
    names: set[str] = set()
    for descriptor in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            name = os.readlink(descriptor)
        except OSError:
            # It was the one of the listing itself.
            continue
        if name.startswith("socket:"):
            names.add(name)
    return names
