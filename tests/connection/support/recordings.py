"""The recordings of a real server in tests/data."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

DATA = Path(__file__).parents[2] / "data"
NAMES = sorted(path.stem for path in DATA.glob("*.jsonl"))


@attrs.frozen
class Frame:
    sender: str
    receiver: str
    text: str

    def json(self) -> dict[str, object]:
        """Return the message without nulls and without values that differ from run to run."""
        members: dict[str, object] = json.loads(self.text)
        return {name: value for name, value in members.items() if value is not None and name != "timestamp"}


@attrs.frozen
class Close:
    sender: str
    receiver: str
    code: int


def frames(name: str) -> list[Frame | Close]:
    """Return the text and close frames of a recording, in order."""
    found: list[Frame | Close] = []
    for line in (DATA / f"{name}.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "text" in entry:
            found.append(Frame(entry["from"], entry["to"], entry["text"]))
        elif "close" in entry:
            found.append(Close(entry["from"], entry["to"], entry["close"]["code"]))
    return found


def text_frames(name: str) -> list[Frame]:
    """Return the text frames of a recording, in order."""
    return [frame for frame in frames(name) if isinstance(frame, Frame)]
