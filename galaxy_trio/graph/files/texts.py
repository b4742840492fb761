"""The texts of graphs' documents: JSON, YAML and TOML."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from galaxy_trio._config.files import parse_configuration
from galaxy_trio._config.text import BYTE_ORDER_MARK, MAX_TEXT
from galaxy_trio.errors import ConfigError
from galaxy_trio.graph.files.json_values import MAX_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from galaxy_trio.messages import JSON

MAX_JSON: Final = 128 * 2**20
"""The size in bytes of the largest JSON document of a graph."""
MAX_SIZES: Final = {".json": MAX_JSON, ".yaml": MAX_TEXT, ".yml": MAX_TEXT, ".toml": MAX_TEXT}
"""The suffixes that files are written with, and the size in bytes of the largest one: the parsers of YAML and TOML are slow."""

_TOML: Final = re.compile(r"""(?:[ \t]*(?:\#[^\n]*)?\n)*[ \t]*(?:\[|(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*=)""")
"""The beginning of a text that is TOML: a table or a value, perhaps after comments."""


def is_text(source: str) -> bool:
    """Whether a string is a document itself, and not the name of a file."""
    return "\n" in source or "\r" in source or source.lstrip(BYTE_ORDER_MARK).lstrip().startswith("{")


def parse_text(text: str, suffix: str, shown: str) -> object:
    """Parse a document.

    Args:
        text: The document.
        suffix: The suffix of its file; empty for a document without a file, whose beginning tells its format.
        shown: The subject of error messages.

    Raises:
        ConfigError: The document is too large, or cannot be parsed.
    """
    text = text.lstrip(BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")
    suffix = suffix.lower() or _suffix_of(text)
    if len(text) > MAX_SIZES.get(suffix, MAX_TEXT):
        raise ConfigError(f"{shown} cannot be read: it is larger than {MAX_SIZES.get(suffix, MAX_TEXT) // 2**20} MiB")
    if suffix == ".json" and sum(map(text.count, ",[{")) > MAX_VALUES:
        # Each may be a value that takes 100 times its memory.
        raise ConfigError(f"{shown} cannot be read: it has more than {MAX_VALUES:,} commas and brackets")
    return parse_configuration(text, suffix, shown)


def _suffix_of(text: str) -> str:
    if text.lstrip().startswith("{"):
        return ".json"
    return ".toml" if _TOML.match(text) else ".yaml"


def write_text(document: dict[str, JSON], suffix: str, shown: str) -> str:
    """Write a document, as the suffix says.

    Args:
        document: The document, which is JSON. TOML has no null.
        suffix: ``.json``, ``.yaml``, ``.yml`` or ``.toml``.
        shown: The subject of error messages.

    Raises:
        ConfigError: A library is missing, or the document is nested too deeply for one.
    """
    try:
        match suffix:
            case ".json":
                return "".join(_json_text(document))
            case ".toml":
                return _toml_text(document, shown)
            case _:
                return _yaml_text(document, shown)
    except RecursionError:
        raise ConfigError(f"{shown} cannot be written: it is nested too deeply") from None


def _json_text(document: dict[str, JSON]) -> Iterator[str]:
    """Write JSON with a line for each node, edge and result, so that two versions can be compared."""
    yield "{"
    for number, (key, value) in enumerate(document.items()):
        yield f"{',' if number else ''}\n  {_json(key)}: "
        if isinstance(value, dict) and value:
            yield "{\n" + ",\n".join(f"    {_json(name)}: {_json(member)}" for name, member in value.items()) + "\n  }"
        elif isinstance(value, list) and value:
            yield "[\n" + ",\n".join(f"    {_json(item)}" for item in value) + "\n  ]"
        else:
            yield _json(value)
    yield "\n}\n"


def _json(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _yaml_text(document: dict[str, JSON], shown: str) -> str:
    try:
        from galaxy_trio.graph.files.yaml_writer import yaml_text  # noqa: PLC0415  # PyYAML belongs to extras
    except ImportError as error:
        raise ConfigError(_missing(shown, "YAML", "PyYAML")) from error
    return yaml_text(document)


def _toml_text(document: dict[str, JSON], shown: str) -> str:
    try:
        import tomli_w  # noqa: PLC0415  # it belongs to extras
    except ImportError as error:
        raise ConfigError(_missing(shown, "TOML", "tomli-w")) from error
    return tomli_w.dumps(document)


def _missing(shown: str, form: str, library: str) -> str:
    return f'{shown} is {form}, and {library} is not installed: pip install "galaxy_trio[cli]", or write it as JSON'
