"""How much is measured."""

from __future__ import annotations

from typing import Final, NamedTuple


class Effort(NamedTuple):
    """How often, and for how long."""

    rounds: int
    warm_up: float
    seconds: float
    imports: int
    holds: int
    idle: float
    outages: int
    daemon_rounds: int
    queued: tuple[int, ...]
    """Tasks that wait when a daemon starts."""


FULL: Final = Effort(
    rounds=5,
    warm_up=0.7,
    seconds=2.0,
    imports=15,
    holds=3,
    idle=60,
    outages=20,
    daemon_rounds=5,
    queued=(20_000, 100_000),
)
QUICK: Final = Effort(
    rounds=3, warm_up=0.3, seconds=0.7, imports=5, holds=1, idle=10, outages=2, daemon_rounds=2, queued=(20_000,)
)
