"""Reads configuration files: YAML, JSON or TOML to plain values, with errors that name the file and the problem."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from galaxy_trio._config.reader import MAX_KEY
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    import yaml


def can_name_a_file(path: str) -> bool:
    """Whether a file can have this name: a name contains no null character, and can be encoded."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def read_text(path: str | os.PathLike[str], failure: str, encoding: str = "utf-8") -> str:
    """Read a text file.

    Args:
        path: The file.
        failure: The beginning of the error message, before the reason.
        encoding: UTF-8, or UTF-8 with an optional byte order mark.

    Raises:
        ConfigError: The file cannot be read, or is not UTF-8 text. Nothing of its content is in the error.
    """
    try:
        return Path(path).read_text(encoding)
    except OSError as error:
        raise ConfigError(f"{failure}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        # This exception contains what was read, tokens included, and must not become the context of the one below.
        pass
    raise ConfigError(f"{failure}: it is not UTF-8 text")


def read_configuration_file(path: str | os.PathLike[str], what: str) -> object:
    """Read a file as its suffix says: ``.json``, ``.toml``, otherwise YAML, which needs the extra ``yaml``.

    Args:
        path: The file.
        what: The subject of error messages, such as "the device configuration".

    Raises:
        ConfigError: The file cannot be read or parsed.
    """
    if not can_name_a_file(os.fspath(path)):
        raise ConfigError(f"{what} {os.fspath(path)!r} cannot be read: no file can have this name")
    shown = f"{what} {path}"
    text = read_text(path, f"{shown} cannot be read")
    match Path(path).suffix.lower():
        case ".json":
            return _parse_json(text, shown)
        case ".toml":
            return parse_toml(text, shown)
        case _:
            return _parse_yaml(text, shown)


def _no_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {key[:MAX_KEY]!r} is given twice")
        members[key] = value
    return members


STRICT_JSON: Final = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
"""Refuses NaN, infinities and duplicate keys."""


def _parse_json(text: str, shown: str) -> object:
    try:
        return cast("object", STRICT_JSON.decode(text))
    except (ValueError, RecursionError) as error:
        problem = str(error)
    # Not chained: Python's error contains the whole text, tokens included.
    raise ConfigError(f"{shown} is not JSON: {problem}")


def parse_toml(text: str, shown: str) -> object:
    """Parse TOML.

    Raises:
        ConfigError: The text is not TOML; `shown` is the subject of the message.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    # Not chained either: the error of newer Pythons contains the text.
    raise ConfigError(f"{shown} is not TOML: {problem}")


def _parse_yaml(text: str, shown: str) -> object:
    try:
        # PyYAML is an extra.
        import yaml  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"{shown} is YAML, and PyYAML is not installed: pip install 'galaxy_trio[yaml]', or write it as JSON"
        ) from error

    class Loader(yaml.SafeLoader):
        """Refuses duplicate keys. A key may replace one that a merge key (``<<``) brings."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # Any: its stub has the wrong type
            node = super().compose_mapping_node(anchor)
            keys: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        raise yaml.MarkedYAMLError(problem="a key is given twice", problem_mark=key.start_mark)
                    keys.add((key.tag, key.value))
            return node

    problem = "it is nested too deeply"
    try:
        return cast("object", yaml.load(text, Loader))  # noqa: S506  # a safe loader
    except yaml.MarkedYAMLError as error:
        problem = _without_content(error)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
    except ValueError:
        problem = "it contains an invalid number or date"
    except RecursionError:
        pass
    raise ConfigError(f"{shown} is not YAML: {problem}")


def _without_content(error: yaml.MarkedYAMLError) -> str:
    """Return the problem and its position. PyYAML also quotes the line, which may contain a token: so its error is not chained."""
    problem = re.sub(r"""(['"]).{4,}\1""", "what stands there", error.problem or "it cannot be read")
    mark = error.problem_mark
    return problem if mark is None else f"{problem} (at line {mark.line + 1}, column {mark.column + 1})"
