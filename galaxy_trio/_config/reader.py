"""Reads objects from outside strictly: reports every problem with its path, and unknown keys with the nearest known key."""

from __future__ import annotations

import json
import reprlib
import sys
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar, cast

from galaxy_trio._nearest import did_you_mean
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.messages import JSON

T = TypeVar("T")

MAX_PROBLEMS: Final = 500
"""The number of problems that are reported for a file; it is not searched for further ones."""
MAX_KEY: Final = 60
"""Characters of a wrong key that are shown."""
_KINDS: Final[dict[type, str]] = {str: "a string", list: "a list", dict: "an object"}


class ObjectReader:
    """Reads the members of an object one by one.

    A member that is absent or null is returned as None, and so is one that is wrong.

    Args:
        value: The object, as parsed.
        path: The path of the object in its document; empty for the document itself.
        problems: Collects the problems; shared by all readers of a document.
        max_problems: The number of problems that are reported; the document is not searched for further ones.
    """

    def __init__(self, value: object, path: str, problems: list[str], max_problems: int = MAX_PROBLEMS) -> None:
        self._path = path
        self._problems = problems
        self._max_problems = max_problems
        self._known: list[str] = []
        self._is_object = isinstance(value, dict)
        self._members = cast("dict[object, object]", value) if self._is_object else {}
        if not self._is_object:
            given = "nothing" if value is None and not path else describe(value)
            self._add(f"{path or 'the file'}: expected an object, got {given}")

    def report(self, key: str, problem: str) -> None:
        """Report a problem with a member."""
        self._add(f"{self._path}.{key}: {problem}" if self._path else f"{key}: {problem}")

    def _add(self, problem: str) -> None:
        if len(self._problems) < self._max_problems:
            self._problems.append(problem)

    def read(
        self,
        key: str,
        expected: str,
        *kinds: type,
        accept: Callable[[T], bool] | None = None,
        secret: bool = False,
        nullable: bool = True,
    ) -> T | None:
        """Read a member of any kind.

        Args:
            key: The member's key.
            expected: The values that are accepted, for the report.
            kinds: The types that are accepted, exactly.
            accept: Whether a value of one of these types is accepted.
            secret: Never show the value.
            nullable: Whether null counts as absent.
        """
        self._known.append(key)
        value = self._members.get(key)
        if value is None and (nullable or key not in self._members):
            return None
        is_kind = type(value) in kinds
        if is_kind and (accept is None or accept(cast("T", value))):
            return cast("T", value)
        # Texts are never shown, because a misplaced token may be anywhere.
        hidden = secret or (is_kind and type(value) in _KINDS)
        given = "" if hidden else f", got {describe(value)}"
        # YAML reads names such as no and 007 as other values.
        hint = "; put it in quotes" if expected == "a string" and isinstance(value, bool | int | float | date) else ""
        self.report(key, f"expected {expected}{given}{hint}")
        return None

    def text(
        self,
        key: str,
        expected: str = "a string",
        *,
        accept: Callable[[str], bool] | None = None,
        required: bool = False,
        secret: bool = False,
    ) -> str | None:
        """Read a string. A required one that is absent is a problem."""
        if required and self._is_object and self._members.get(key) is None:
            self.report(key, "is missing")
        return self.read(key, expected, str, accept=accept, secret=secret)

    def integer(self, key: str, *, minimum: int | None = None, maximum: int | None = None) -> int | None:
        """Read an integer; from `minimum`, to `maximum`."""
        limits = (
            "" if minimum is None else f" from {minimum:,} to {maximum:,}" if maximum else f" of {minimum:,} or more"
        )

        def accept(value: int) -> bool:
            return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)

        return self.read(key, f"a whole number{limits}", int, accept=accept)

    def number(
        self,
        key: str,
        unit: str = "seconds",
        *,
        zero: bool = False,
        maximum: float = sys.float_info.max,
        nullable: bool = True,
    ) -> float | None:
        """Read a finite number above 0, or one that is 0 or more."""
        limit = "" if maximum == sys.float_info.max else f", of at most {maximum:.0f}"

        def accept(value: float) -> bool:
            return (value > 0 or (zero and value == 0)) and value <= maximum

        expected = f"a number of {unit} {'of 0 or more' if zero else 'above 0'}{limit}"
        return self.read(key, expected, int, float, accept=accept, nullable=nullable)

    def boolean(self, key: str) -> bool | None:
        """Read a boolean."""
        return self.read(key, "true or false", bool)

    def texts(
        self,
        key: str,
        expected: str = "a list of strings",
        item: str = "a string",
        *,
        accept: Callable[[str], bool] | None = None,
        nullable: bool = True,
        maximum: int = sys.maxsize,
    ) -> tuple[str, ...]:
        """Read a list of strings, at most `maximum` of them. Returns those that are accepted."""

        def is_short(values: list[object]) -> bool:
            return len(values) <= maximum

        values: list[object] = self.read(key, expected, list, accept=is_short, nullable=nullable) or []
        texts: list[str] = []
        for index, value in enumerate(values):
            if len(self._problems) >= self._max_problems:
                break
            if not isinstance(value, str):
                self.report(f"{key}[{index}]", f"expected {item}, got {describe(value)}")
            elif accept is not None and not accept(value):
                self.report(f"{key}[{index}]", f"expected {item}")
            else:
                texts.append(value)
        return tuple(texts)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Read an object of strings, whose values are never shown."""
        members: dict[object, object] = self.read(key, "an object of strings", dict, secret=True) or {}
        pairs = [(name, value) for name, value in members.items() if isinstance(name, str) and isinstance(value, str)]
        if len(pairs) < len(members):
            self.report(key, "expected an object of strings")
        return tuple(pairs)

    def any_object(self, key: str) -> dict[str, JSON]:
        """Read an object with any members."""
        return self.read(key, "an object", dict) or {}

    def value(self, key: str) -> object:
        """Return a member of any kind, unchecked; None if it is absent."""
        self._known.append(key)
        return self._members.get(key)

    def unused(self, *keys: str) -> list[str]:
        """Accept members with any values, which are not read. Returns the keys of those that are given."""
        self._known += keys
        return [key for key in keys if key in self._members]

    def refuse_unknown(self, *, extensions: bool = False) -> None:
        """Report the members that were not read. Call this last.

        Args:
            extensions: Whether to accept keys that begin with ``_`` or ``x-``, whose values may be anything.
        """
        unknown = (key for key in self._members if key not in self._known and not (extensions and is_extension(key)))
        for key in islice(unknown, self._max_problems):
            name = key if isinstance(key, str) else describe(key)
            hint = did_you_mean(name, self._known) or f"; known are {', '.join(self._known)}"
            self._add(f"{member_path(self._path, key)}: unknown key{hint}")


def is_extension(key: object) -> bool:
    """Whether a key of a configuration file begins with ``_`` or ``x-``, and may have any value."""
    return isinstance(key, str) and key.lower().startswith(("_", "x-"))


def member_path(path: str, key: object) -> str:
    """Return the path of a member; `path` is that of its object, and empty for the document itself."""
    name = key if isinstance(key, str) else describe(key)
    if name is key and not name.isidentifier():
        shown = repr(name[:MAX_KEY])
        return f"{path}[{shown}]" if path else shown
    return f"{path}.{name[:MAX_KEY]}" if path else name[:MAX_KEY]


def check_problems(what: str, problems: list[str]) -> None:
    """Raise all problems of a document as one error, if there are any.

    Raises:
        ConfigError: There are problems; `what` is the subject of the message.
    """
    if problems:
        places = f"{len(problems)} places" if len(problems) > 1 else "one place"
        raise ConfigError(f"{what} is wrong at {places}: " + "; ".join(problems), problems=problems)


def describe(value: object) -> str:
    """Describe a value without the text in it, which may be a misplaced token."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, int | float):
        return _KINDS.get(type(value)) or f"a {type(value).__name__}"
    try:
        # Python refuses to convert very long integers to text. Since 3.14, reprlib shows their addresses instead.
        repr(value)
    except ValueError:
        return "a number of very many digits"
    return reprlib.repr(value)
