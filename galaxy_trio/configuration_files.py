"""Files that people write: YAML, JSON or TOML to plain values, with an error that names the file and what is wrong with it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    import os


def read_configuration_file(path: str | os.PathLike[str], what: str) -> object:
    """Read a file by its ending: ``.json``, ``.toml``, and YAML otherwise, which needs the extra ``yaml``.

    Args:
        path: Of the file.
        what: What error messages call it: "the device configuration".

    Raises:
        ConfigError: The file cannot be read or parsed.
    """
    shown = f"{what} {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"{shown} cannot be read: {reason}") from error
    match Path(path).suffix.lower():
        case ".json":
            return _parse_json(text, shown)
        case ".toml":
            return _parse_toml(text, shown)
        case _:
            return _parse_yaml(text, shown)


def _parse_json(text: str, shown: str) -> object:
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{shown} is not JSON: {error}") from error


def _parse_toml(text: str, shown: str) -> object:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{shown} is not TOML: {error}") from error


def _parse_yaml(text: str, shown: str) -> object:
    try:
        # Imported where it is needed: it is an extra.
        import yaml  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"{shown} is YAML, and PyYAML is not installed: pip install 'galaxy_trio[yaml]', or write it as JSON"
        ) from error
    try:
        return cast("object", yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{shown} is not YAML: {' '.join(str(error).split())}") from error
