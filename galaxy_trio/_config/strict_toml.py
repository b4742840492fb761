"""Parses TOML, whose parser refuses keys that are given twice, and adds the path of such a key to its error."""

from __future__ import annotations

import re
import tomllib
from typing import Final

from galaxy_trio._config.reader import check_problems, member_path
from galaxy_trio._config.text import backslash_hint
from galaxy_trio.errors import ConfigError

_PART: Final = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+)"""
_KEY: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_STATEMENT: Final = re.compile(rf"[ \t]*(?:(\[\[?)[ \t]*({_KEY})[ \t]*\]|({_KEY})[ \t]*=)")
_TRIPLE_QUOTES: Final = re.compile(r'"""|\'\'\'')
_INLINE_KEY: Final = re.compile(r"Duplicate inline table key '([^']*)'")
_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")
_TWICE: Final = ("Cannot declare", "Cannot overwrite", "Cannot redefine", "Cannot mutate", "Duplicate inline table key")
"""The beginnings of tomllib's errors about keys that exist already."""


def parse_toml(text: str, shown: str) -> object:
    """Parse a document.

    Args:
        text: The document.
        shown: The subject of error messages.

    Raises:
        ConfigError: The text is not TOML, or a key is given twice: this is a problem with its path and its line.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    # Not chained: the error of newer Pythons contains the text.
    if problem.startswith(_TWICE):
        found = _LINE.search(problem)
        lines = text.splitlines()
        line = len(lines) if found is None else int(found[1])
        path, inline = _path(lines[:line]), _INLINE_KEY.match(problem)
        path = path if inline is None else member_path(path, inline[1])
        check_problems(shown, [f"{path}: is given twice, the second time in line {line}: leave out one"])
    raise ConfigError(f"{shown} is not TOML: {problem}{backslash_hint(problem)}")


def _path(lines: list[str]) -> str:
    """Return the path of the last key in these lines."""
    # How often each array of tables has begun.
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    # The table, if the last statement begins it.
    begun: tuple[str, ...] | None = None
    is_in_text = False
    for line in lines:
        statement = None if is_in_text else _STATEMENT.match(line)
        is_in_text ^= len(_TRIPLE_QUOTES.findall(line)) % 2 == 1
        if statement is None:
            continue
        bracket, header, name = statement.groups()
        if bracket is None:
            key, begun = table + _parts(name), None
            continue
        key = table = begun = _parts(header)
        if bracket == "[[":
            counts = {array: count for array, count in counts.items() if array[: len(table)] != table or array == table}
            counts[table] = counts.get(table, 0) + 1
    path = ""
    for length, part in enumerate(key, 1):
        path = member_path(path, part)
        if key[:length] in counts and key[:length] != begun:
            path += f"[{counts[key[:length]] - 1}]"
    return path


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, key))
