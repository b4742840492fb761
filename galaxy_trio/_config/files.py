"""Reads configuration files: YAML, JSON or TOML to plain values, with errors that name the file and the problem."""

from __future__ import annotations

import os
from pathlib import Path

from galaxy_trio._config.strict_json import parse_json
from galaxy_trio._config.strict_toml import parse_toml
from galaxy_trio._config.text import MAX_TEXT, read_text
from galaxy_trio.errors import ConfigError


def can_name_a_file(path: str) -> bool:
    """Whether a file can have this name: a name contains no null character, and can be encoded."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def read_configuration_file(path: str | os.PathLike[str], what: str) -> object:
    """Read a file as its suffix says: ``.json``, ``.toml``, otherwise YAML, which needs PyYAML.

    Args:
        path: The file.
        what: The subject of error messages, such as "the device configuration".

    Raises:
        ConfigError: The file cannot be read or parsed, or a key is given twice in it.
    """
    text = read_named_text(path, what)
    return parse_configuration(text, Path(path).suffix, f"{what} {path}")


def read_named_text(path: str | os.PathLike[str], what: str, max_size: int = MAX_TEXT) -> str:
    """Read the text of a file.

    Args:
        path: The file.
        what: The subject of error messages.
        max_size: The size in bytes of the largest file that is read.

    Raises:
        ConfigError: The file cannot be read.
    """
    if not can_name_a_file(os.fspath(path)):
        raise ConfigError(f"{what} {os.fspath(path)!r} cannot be read: no file can have this name")
    return read_text(path, f"{what} {path} cannot be read", max_size)


def parse_configuration(text: str, suffix: str, shown: str) -> object:
    """Parse a text as the suffix of its file says.

    Args:
        text: The text.
        suffix: ``.json``, ``.toml``, or any other for YAML.
        shown: The subject of error messages.

    Raises:
        ConfigError: The text cannot be parsed, or a key is given twice in it.
    """
    match suffix.lower():
        case ".json":
            return parse_json(text, shown)
        case ".toml":
            return parse_toml(text, shown)
        case _:
            return _parse_yaml(text, shown)


def _parse_yaml(text: str, shown: str) -> object:
    try:
        from galaxy_trio._config.strict_yaml import parse_yaml  # noqa: PLC0415  # PyYAML belongs to extras
    except ImportError as error:
        raise ConfigError(
            f'{shown} is YAML, and PyYAML is not installed: pip install "galaxy_trio[cli]", or write it as TOML or JSON'
        ) from error
    return parse_yaml(text, shown)
