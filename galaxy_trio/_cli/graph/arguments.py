"""The argument that names a graph: a file, or the id of a graph in the daemon."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click

from galaxy_trio._cli.options import valid_text
from galaxy_trio.errors import ConfigError

_ID: Final = re.compile(r"[0-9a-f]{32}")

file_or_id: Final = click.argument("named", metavar="FILE|ID", type=valid_text)


def file_of(named: str) -> Path | None:
    """Return the file that an argument names; None if it is the id of a graph in the daemon.

    An id has 32 hexadecimal digits. A file of that name takes precedence.

    Raises:
        ConfigError: It is neither.
    """
    path = Path(named)
    if path.exists():
        return path
    if _ID.fullmatch(named):
        return None
    if path.suffix or path.name != named:
        return path
    raise ConfigError(
        f"{named[:100]!r} is neither a file nor the id of a graph in the daemon, which has 32 hexadecimal digits: "
        "galaxy-trio graph list shows them"
    )
