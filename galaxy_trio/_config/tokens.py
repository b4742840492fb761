"""Reads tokens from files and environment variables, one per line. No error contains any of their content."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from galaxy_trio._config.text import BYTE_ORDER_MARK, read_text
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_token_file(path: str | os.PathLike[str], what: str = "the token") -> tuple[str, ...]:
    """Read the tokens in a file.

    Args:
        path: The file.
        what: The subject of error messages.

    Raises:
        ConfigError: The file cannot be read, is not UTF-8 text, contains no token, or one with invisible characters. The message shows the
            file's name only if there is such a file: what names none may be a token that was given instead of a file.
    """
    exists = os.path.lexists(path)
    failure = f"{what} cannot be read from {path if exists else 'its file, whose name is not shown'}"
    try:
        text = read_text(path, failure)
    except ConfigError as error:
        if exists:
            raise
        problem = str(error)
    else:
        tokens = _lines(text, failure)
        if not tokens:
            raise ConfigError(f"{failure}: there is no token in it; write one on a line of its own")
        return tokens
    # Not chained: the operating system's error contains the name.
    raise ConfigError(problem)


def read_token_variable(variable: str, what: str = "the token") -> tuple[str, ...]:
    """Read the tokens in an environment variable; none if it is not set.

    Args:
        variable: The name of the variable.
        what: The subject of error messages.

    Raises:
        ConfigError: The variable is not valid UTF-8, or a token has invisible characters.
    """
    text = os.environ.get(variable, "")
    failure = f"{what} cannot be read from the environment variable {variable}"
    # The system passes on invalid bytes as lone surrogates.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{failure}: it is not valid UTF-8")
    return _lines(text, failure)


def require_one(tokens: Sequence[str], what: str = "the token", where: str = "it") -> str:
    """Return the only token.

    Raises:
        ConfigError: There are several tokens.
    """
    if len(tokens) > 1:
        raise ConfigError(f"{what} must be a single one, and {where} contains {len(tokens)} lines: remove the others")
    return tokens[0]


def _lines(text: str, failure: str) -> tuple[str, ...]:
    # A mark is also where files were joined, and in a variable that was set from a file.
    lines = (line.replace(BYTE_ORDER_MARK, "").strip() for line in text.splitlines())
    tokens = tuple(filter(None, lines))
    if not all(map(str.isprintable, tokens)):
        # Copied from a web page or a document, a token may contain them.
        raise ConfigError(f"{failure}: a token contains invisible characters: type it, or copy it again")
    return tokens
