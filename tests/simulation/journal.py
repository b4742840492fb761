"""The journal of a run, by which the promises are checked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from galaxy_trio.events import Event, EventsLost


@attrs.frozen
class Entry:
    """A line of the journal.

    Attributes:
        at: The time on trio's clock.
        actor: ``caller``, ``server``, ``device``, ``world`` or ``event``.
        action: What it did.
        name: The call or other subject.
    """

    at: float
    actor: str
    action: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.actor} {self.action} {self.name}{': ' if self.detail else ''}{self.detail}"


class Journal:
    """The lines of a run, in order.

    Attributes:
        events: The events that a subscriber of the constellation received.
    """

    def __init__(self) -> None:
        self.events: list[Event | EventsLost] = []
        self.entries: list[Entry] = []

    def write(self, actor: str, action: str, name: str, detail: object = "") -> None:
        """Write a line with the current time."""
        self.entries.append(Entry(trio.current_time(), actor, action, name, str(detail)))

    def of(self, actor: str, action: str, name: str | None = None) -> list[Entry]:
        """Return the lines of one kind, of one subject or of all."""
        return [
            entry
            for entry in self.entries
            if (entry.actor, entry.action) == (actor, action) and name in (None, entry.name)
        ]

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))


class ErrorLog(logging.Handler):
    """Records errors that the package logs. There must be none."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record an error."""
        self.errors.append(self.format(record))
