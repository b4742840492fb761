"""Reads text files as editors on any system save them: UTF-8, with or without a byte order mark, with any line ends."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final

from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    import os

BYTE_ORDER_MARK: Final = "\ufeff"
MAX_TEXT: Final = 16 * 2**20
"""The size in bytes of the largest file that is read."""
# UTF-32 comes first: its mark begins with that of UTF-16.
_OTHER_ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_text(path: str | os.PathLike[str], failure: str, max_size: int = MAX_TEXT) -> str:
    """Read a text file. Byte order marks at its beginning are left out, and lines end as in Python.

    Args:
        path: The file.
        failure: The beginning of the error message, before the reason.
        max_size: The size in bytes of the largest file that is read.

    Raises:
        ConfigError: The file cannot be read, is too large, or is not UTF-8 text. Nothing of its content is in the error.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_size + 1)
    except OSError as error:
        raise ConfigError(f"{failure}: {error.strerror or error}") from error
    problem = problem_of_text(data, max_size)
    if problem is not None:
        raise ConfigError(f"{failure}: {problem}")
    text = data.decode().lstrip(BYTE_ORDER_MARK)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def backslash_hint(problem: str) -> str:
    """Return the end of a parser's error that is about a backslash, as in a path of Windows; empty for any other error."""
    return "; write / or two backslashes" if "escape" in problem or "hex value" in problem else ""


def problem_of_text(data: bytes, max_size: int = MAX_TEXT) -> str | None:
    """Return the reason for which the content of a file is not text that can be read; None if it can be."""
    if len(data) > max_size:
        return f"it is larger than {max_size // 2**20} MiB"
    for mark, name in _OTHER_ENCODINGS:
        if data.startswith(mark):
            return f"it is {name} text: save it as UTF-8"
    try:
        data.decode()
    except UnicodeDecodeError:
        # This exception contains what was read, tokens included, and must not become the context of another one.
        return "it is not UTF-8 text: save it as UTF-8"
    if b"\0" in data:
        return "it contains null characters, as UTF-16 text does: save it as UTF-8"
    return None
