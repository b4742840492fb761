"""Small requests, for device information: how many a second, what each costs, and where the time goes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final, cast

from .meter import Rate
from .processes import measure
from .report import Target, at_least, at_most, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from .effort import Effort
    from .processes import Peer
    from .sampling import Line

CONTENDERS: Final = ("floor", "reference", "lean", "galaxy")
_OTHERS: Final = ("floor", "reference", "lean")
_WANTED: Final = {1: 1.05, 10: 1.05, 100: 1.0, 1_000: 1.0}
"""Requests in flight, and the share of the reference's rate that is aimed at."""


def bench_rates(peer: Peer, effort: Effort) -> list[Target]:
    """Ask for device information, with some requests in flight all the time."""
    print("\n## Small requests: device information")
    rates: dict[tuple[int, str], list[Rate]] = {}
    for _ in range(effort.rounds):
        for in_flight in _WANTED:
            for contender in CONTENDERS:
                outcome = measure("rate", contender, *peer, in_flight, effort.warm_up, effort.seconds)
                rates.setdefault((in_flight, contender), []).append(Rate(*cast("list[float]", outcome)))
    middle = {key: Rate(*map(median, zip(*taken, strict=True))) for key, taken in rates.items()}

    def ratio(in_flight: int, other: str, value: Callable[[Rate], float]) -> float:
        return value(middle[in_flight, "galaxy"]) / value(middle[in_flight, other])

    def shown_cpu(in_flight: int, contender: str) -> str:
        cpus = sorted(rate.cpu * 1e6 for rate in rates[in_flight, contender])
        return f"{middle[in_flight, contender].cpu * 1e6:.0f} ({cpus[0]:.0f}-{cpus[-1]:.0f})"

    def shown_rate(in_flight: int, contender: str) -> str:
        rate = middle[in_flight, contender]
        return f"{rate.per_second:,.0f} ({rate.peer_busy:.0%})"

    def print_rates(shown: Callable[[int, str], str], value: Callable[[Rate], float]) -> None:
        print_table(
            ("in flight", *CONTENDERS, *(f"galaxy / {other}" for other in _OTHERS)),
            (
                (
                    f"{in_flight:,}",
                    *(shown(in_flight, contender) for contender in CONTENDERS),
                    *(f"{ratio(in_flight, other, value):.2f}" for other in _OTHERS),
                )
                for in_flight in _WANTED
            ),
        )

    print(
        "\nRequests per second (in brackets: the share of a core that the peer took; near 100 %, the rate is the peer's)."
    )
    print_rates(shown_rate, _per_second)
    print("Microseconds of the client's CPU time per request (in brackets: least and most of the rounds).")
    print_rates(shown_cpu, _cpu)
    return [
        *(
            at_least(
                f"requests/s, {in_flight:,} in flight, of the reference's",
                wanted,
                ratio(in_flight, "reference", _per_second),
            )
            for in_flight, wanted in _WANTED.items()
        ),
        *(
            at_most(f"CPU per request, {in_flight:,} in flight, of the floor's", 1.0, ratio(in_flight, "floor", _cpu))
            for in_flight in _WANTED
        ),
    ]


def _per_second(rate: Rate) -> float:
    return rate.per_second


def _cpu(rate: Rate) -> float:
    return rate.cpu


def print_profile(peer: Peer, contender: str, in_flight: int, seconds: float) -> None:
    """Show where the client's CPU time goes."""
    outcome = measure("profile", contender, *peer, in_flight, 0.2, seconds)
    rate, samples, *tables = cast("tuple[list[float], int, list[Line], list[Line], list[Line]]", outcome)
    per_second, cpu, _ = rate
    print(f"\n## Profile of {contender} at {in_flight} in flight: µs of CPU per request, of {cpu * 1e6:.0f} in all")
    print(f"\n{samples:,} samples; {per_second:,.0f} requests/s while sampled.")
    headers = (
        ("package", "own", "own"),
        ("function", "own", "with all it calls"),
        ("line of the package", "", "with all it calls"),
    )
    for header, table in zip(headers, tables, strict=True):
        print_table(header, ((what, f"{own:.1f}", f"{within:.1f}") for what, own, within in table))
