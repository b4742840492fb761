"""What the benchmarks print: Markdown tables, and how far the targets are met."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Target(NamedTuple):
    """A figure that is aimed at, and what was measured."""

    what: str
    relation: str
    """``≥`` or ``≤``."""
    wanted: float
    measured: float

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.wanted if self.relation == "≥" else self.measured <= self.wanted


def at_least(what: str, wanted: float, measured: float) -> Target:
    return Target(what, "≥", wanted, measured)


def at_most(what: str, wanted: float, measured: float) -> Target:
    return Target(what, "≤", wanted, measured)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print each row as soon as it is there."""
    print()
    print("|", " | ".join(header), "|")
    print("|", " | ".join("---" if index == 0 else "---:" for index in range(len(header))), "|")
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)
    print()


def print_targets(targets: Iterable[Target]) -> None:
    """Print all of them, met or not."""
    print("\n## Targets")
    print_table(
        ("target", "wanted", "measured", "met"),
        (
            (
                target.what,
                f"{target.relation} {target.wanted:g}",
                f"{target.measured:.2f}",
                "yes" if target.met else "no",
            )
            for target in targets
        ),
    )
