"""A task's result of 64 MiB: how fast it comes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final, cast

from .processes import measure
from .report import Target, at_least, print_table
from .wire import LARGE

if TYPE_CHECKING:
    from .effort import Effort
    from .processes import Peer

_CONTENDERS: Final = ("floor", "lean", "galaxy")


def bench_large_result(peer: Peer, effort: Effort) -> list[Target]:
    """Receive one string of 64 MiB."""
    print("\n## A task's result of 64 MiB, one string")
    times: dict[str, list[float]] = {contender: [] for contender in _CONTENDERS}
    # Each takes but half a second, and they differ more than the contenders do.
    for _ in range(4 * effort.rounds):
        for contender in _CONTENDERS:
            times[contender].append(cast("float", measure("large", contender, peer.url)))
    speeds = {contender: LARGE / 1e6 / median(taken) for contender, taken in times.items()}
    print_table(
        ("", *_CONTENDERS),
        [
            ("MB/s", *(f"{speed:.0f}" for speed in speeds.values())),
            ("least-most", *(f"{LARGE / 1e6 / max(t):.0f}-{LARGE / 1e6 / min(t):.0f}" for t in times.values())),
        ],
    )
    return [at_least("MB/s of a 64 MiB result, of the lean client's", 1.0, speeds["galaxy"] / speeds["lean"])]
