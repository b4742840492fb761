"""Writes YAML with PyYAML.

PyYAML belongs to extras: only `galaxy_trio.graph.files.texts` imports this module, when it writes a YAML file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_WIDTH: Final = 120
_LINE_BREAKS: Final = ("\x85", "\u2028", "\u2029")
"""Characters that PyYAML writes as they are, and reads as spaces."""


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs several times as often, in place of an alias."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(map(text.__contains__, _LINE_BREAKS)) else None
    # Its stub has no type for the value.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _text)


def yaml_text(document: dict[str, JSON]) -> str:
    """Write a document, with its members in their order."""
    # Its stub has a type that is unknown.
    return yaml.dump(  # pyright: ignore[reportUnknownMemberType]
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
