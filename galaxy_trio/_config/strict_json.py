"""Parses JSON, and refuses what Python accepts beyond it: keys that are given twice, NaN and infinities."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, cast

from galaxy_trio._config.reader import MAX_PROBLEMS, check_problems, member_path
from galaxy_trio._config.text import backslash_hint
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


class RepeatedKeys(ValueError):
    """Keys are given twice in an object.

    Attributes:
        problems: A problem for each key, with its path.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Repeating(dict[str, object]):
    """An object in which keys are given twice."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__()
        self.repeated: list[str] = []
        for key, value in pairs:
            if key in self and key not in self.repeated[-1:]:
                self.repeated.append(key)
            self[key] = value


def decode_json(text: str) -> object:
    """Parse a document.

    Raises:
        RepeatedKeys: Keys are given twice.
        ValueError: The text is not JSON. Its message shows nothing of the text, but the exception contains all of it.
        RecursionError: It is nested too deeply.
    """
    is_repeating = False

    def make_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal is_repeating
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        is_repeating = True
        return _Repeating(pairs)

    decoder = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=make_object)
    value = cast("object", decoder.decode(text))
    if is_repeating:
        raise RepeatedKeys(list(islice(_repeated_keys(value), MAX_PROBLEMS)))
    return value


def parse_json(text: str, shown: str) -> object:
    """Parse a document.

    Args:
        text: The document.
        shown: The subject of error messages.

    Raises:
        ConfigError: The text is not JSON, or keys are given twice: each is a problem with its path.
    """
    try:
        return decode_json(text)
    except RepeatedKeys as error:
        problems, problem = error.problems, ""
    except (ValueError, RecursionError) as error:
        problems, problem = [], str(error)
    # Not chained: Python's error contains the whole text, tokens included.
    check_problems(shown, problems)
    raise ConfigError(f"{shown} is not JSON: {problem}{backslash_hint(problem)}")


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _repeated_keys(document: object) -> Iterator[str]:
    remaining: list[tuple[str, object]] = [("", document)]
    while remaining:
        path, value = remaining.pop()
        if isinstance(value, _Repeating):
            for key in value.repeated:
                yield f"{member_path(path, key)}: is given twice: leave out one"
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            remaining += reversed([(member_path(path, key), member) for key, member in members.items()])
        elif isinstance(value, list):
            items = cast("list[object]", value)
            remaining += reversed([(f"{path}[{index}]", item) for index, item in enumerate(items)])
