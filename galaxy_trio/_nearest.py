"""The names nearest to one that is not known, for error messages."""

from __future__ import annotations

import difflib
import heapq
import reprlib
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_NAMES: Final = 1_000
"""Names that are considered. With the other two limits, a comparison takes a few milliseconds."""
_MAX_LENGTH: Final = 40
"""Characters of each name that are compared."""
_COMPARED: Final = 10
"""Names that are compared exactly: those with most pairs of characters in common."""
_SIMILAR: Final = 0.6
"""The similarity from which a name is near, as in `difflib`: 1 for the same name."""
_SHORTEST_PART: Final = 3
_SHOWN: Final = 3
_LISTED: Final = 10

_repr = reprlib.Repr()
_repr.maxstring = 60


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that a person may have meant: at most three, the nearest first, of the first 1,000 known ones."""
    wanted = _comparable(name)
    names: dict[str, str] = {}
    for each in islice(known, _MAX_NAMES):
        # The first one of those that differ in case only.
        names.setdefault(_comparable(each), each)
    pairs = _pairs(wanted)
    promising = heapq.nlargest(_COMPARED, names, lambda each: _overlap(pairs, _pairs(each)))
    matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)
    similarity: dict[str, float] = {}
    for each in promising:
        matcher.set_seq1(each)
        similarity[each] = matcher.ratio()
    near = [each for each in promising if similarity[each] >= _SIMILAR or _is_part(wanted, each)]
    return [names[each] for each in sorted(near, key=similarity.__getitem__, reverse=True)][:_SHOWN]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about a name that is not known: the nearest known names, or nothing."""
    shown = [_repr.repr(each) for each in nearest(name, known)]
    if not shown:
        return ""
    *others, last = shown
    return f"; did you mean {', '.join(others) + ' or ' if others else ''}{last}?"


def did_you_mean_or_known(name: str, known: Iterable[str]) -> str:
    """Like `did_you_mean`, but with some of the known names if none is near."""
    known = list(known)
    shown = [_repr.repr(each) for each in known[:_LISTED]]
    if len(known) > _LISTED:
        shown.append(f"and {len(known) - _LISTED} more")
    return did_you_mean(name, known) or (f"; known: {', '.join(shown)}" if shown else "")


def _comparable(name: str) -> str:
    return name[:_MAX_LENGTH].lower()


def _is_part(one: str, other: str) -> bool:
    """Whether one name contains the other, such as a name with its namespace."""
    return min(len(one), len(other)) >= _SHORTEST_PART and (one in other or other in one)


def _pairs(name: str) -> set[str]:
    return {*name, *(name[at : at + 2] for at in range(len(name) - 1))}


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / (len(one) + len(other) or 1)
