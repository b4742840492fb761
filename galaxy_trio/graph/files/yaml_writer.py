"""Writes YAML with PyYAML.

PyYAML belongs to extras: only `galaxy_trio.graph.files.texts` imports this module, when it writes a YAML file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs several times as often, in place of an alias."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def yaml_text(document: dict[str, JSON]) -> str:
    """Write a document, with its members in their order."""
    # Its stub has a type that is unknown.
    return yaml.dump(  # pyright: ignore[reportUnknownMemberType]
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
