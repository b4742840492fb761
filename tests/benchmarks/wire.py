"""What the contenders and the peer of the benchmarks say to each other."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

DEVICE_ID: Final = "device_001"
MIB: Final = 2**20
LARGE: Final = 64 * MIB
LIMIT: Final = 100 * MIB
MARGIN: Final = 1024
"""The bytes of a message at the limit that are not payload."""

_RECORDINGS: Final = Path(__file__).parents[1] / "data"


UNKNOWN_REPLIES: Final = 100_000


class Task(StrEnum):
    """The requests that the peer knows; each asks for the result that it names."""

    OTHER = "anything else"
    SHORT = "a short result"
    LARGE_STRING = "a string of 64 MiB"
    SILENCE = "no answer to anything from now on"
    UNKNOWN = "100,000 replies to nothing that was asked, first"
    LIMIT_STRING = "one string of 100 MiB"


def recorded(name: str, sender: str, type: str) -> str:
    """The first recorded message of a type between a constellation and its server.

    Args:
        name: Of the recording.
        sender: ``server`` or ``constellation``.
        type: The message's.
    """
    for line in (_RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        entry = cast("dict[str, str]", json.loads(line))
        if entry.get("from") != sender or "device" in (entry["from"], entry["to"]) or "text" not in entry:
            continue
        if cast("dict[str, object]", json.loads(entry["text"]))["type"] == type:
            return entry["text"]
    raise LookupError(f"no {type} of the {sender} in {name}.jsonl")
