"""A machine that sleeps when a test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio._concurrency import suspension

if TYPE_CHECKING:
    import pytest


class MachineSleep:
    """Replaces the clocks that show the machine's sleep. trio's clock stands still in it, as on Linux.

    Attributes:
        looks: How many times the clocks were read.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._asleep = 0.0
        self.looks = 0
        monkeypatch.setattr(suspension, "time_asleep", self._look)

    def sleep(self, seconds: float) -> None:
        """Let the machine sleep for so long, now."""
        self._asleep += seconds

    def _look(self) -> float:
        self.looks += 1
        return self._asleep
