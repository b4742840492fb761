"""Tasks through a constellation, and through the device manager that it replaces: how many a second, and what each costs."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from .meter import Rate
from .processes import measure
from .report import Target, at_least, print_table

if TYPE_CHECKING:
    from .effort import Effort
    from .processes import Peer

_CONTENDERS: Final = ("reference", "lean", "galaxy")


class _Case(NamedTuple):
    """Tasks on devices, with the share of the reference's rate that is aimed at."""

    what: str
    devices: int
    tasks: int
    together: bool
    wanted: float


_CASES: Final = (
    _Case("2,000 together on 10 devices", 10, 2_000, together=True, wanted=1.0),
    _Case("600 one after the other on one device", 1, 600, together=False, wanted=0.9),
)


def bench_tasks(peer: Peer, effort: Effort) -> list[Target]:
    """Run tasks that the peer ends immediately, so that all the time is the client's."""
    print("\n## Tasks through a constellation\n")
    print("In brackets: the share of a core that the peer took; µs are of the client's CPU time for one task.")
    print("`reference` takes the steps of the client that this package replaces; `lean` takes as few as asyncio can.")
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    for case in _CASES:
        rates = _measure(case, peer, effort)
        galaxy = rates["galaxy"]
        for other in ("reference", "lean"):
            compared = rates[other]
            ratio = galaxy.per_second / compared.per_second
            rows.append(
                (
                    case.what,
                    other,
                    *(f"{rate.per_second:,.0f} ({rate.peer_busy:.0%})" for rate in (compared, galaxy)),
                    f"{ratio:.2f}",
                    *(f"{rate.cpu * 1e6:,.0f}" for rate in (compared, galaxy)),
                    f"{galaxy.cpu / compared.cpu:.2f}",
                )
            )
            if other == "reference":
                targets.append(at_least(f"tasks/s, {case.what}, of the reference's", case.wanted, ratio))
    units = [f"{whose}, {unit}" for unit in ("tasks/s", "µs") for whose in ("its", "ours", "ours / its")]
    print_table(("tasks", "over", *units), rows)
    return targets


def _measure(case: _Case, peer: Peer, effort: Effort) -> dict[str, Rate]:
    """The medians of each contender. A round is short, and rounds differ: there are twice as many as elsewhere."""
    taken: dict[str, list[Rate]] = {contender: [] for contender in _CONTENDERS}
    for _ in range(2 * effort.rounds):
        for contender in _CONTENDERS:
            outcome = measure("tasks", contender, *peer, case.devices, case.tasks, case.together)
            taken[contender].append(Rate(*cast("list[float]", outcome)))
    return {contender: Rate(*map(median, zip(*rates, strict=True))) for contender, rates in taken.items()}
