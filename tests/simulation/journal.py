"""What both ends write down of a run: the promises are judged by it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from galaxy_trio.events import Event, EventsLost


@attrs.frozen
class Entry:
    """One line.

    Attributes:
        at: On trio's clock.
        who: ``caller``, ``server``, ``device``, ``world`` or ``event``.
        what: What happened.
        name: To which request, or what else.
    """

    at: float
    who: str
    what: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.who} {self.what} {self.name}{': ' if self.detail else ''}{self.detail}"


class Journal:
    """The lines of a run, in order.

    Attributes:
        events: What a subscriber of the constellation was told.
    """

    def __init__(self) -> None:
        self.events: list[Event | EventsLost] = []
        self.entries: list[Entry] = []

    def write(self, who: str, what: str, name: str, detail: object = "") -> None:
        """Write a line of now."""
        self.entries.append(Entry(trio.current_time(), who, what, name, str(detail)))

    def of(self, who: str, what: str, name: str | None = None) -> list[Entry]:
        """Some of them."""
        return [
            entry for entry in self.entries if (entry.who, entry.what) == (who, what) and name in (None, entry.name)
        ]

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))


class ErrorLog(logging.Handler):
    """What the package logs as an error: nothing ever should be."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.errors.append(self.format(record))
