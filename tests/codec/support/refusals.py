"""The error of a refused message, with everything that it contains."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from galaxy_trio.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")
UNUSUAL = "ж"
"""A character that no error of the package uses."""


def refusal(read: Callable[[T], object], value: T) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as caught:
        read(value)
    return caught.value


def chain(error: BaseException) -> list[BaseException]:
    """List an error with all of its causes and contexts."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and all(one is not other for other in found):
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def held(error: BaseException, character: str = UNUSUAL) -> int:
    """Count a character in an error: in its message, its attributes, its causes and its contexts."""
    return sum(
        max(text.count(character) for text in (str(one), repr(one), repr(one.args)))
        + sum(str(value).count(character) for value in vars(one).values())
        for one in chain(error)
    )


HUGE = UNUSUAL * 1_000
