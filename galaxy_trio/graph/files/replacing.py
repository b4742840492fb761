"""Replaces files as a whole: a reader finds the old content or the new one, and a failed write leaves the old one."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under another name in the same folder, and rename it. A link stays a link, and its file is replaced.

    Raises:
        OSError: It cannot be written, or the name belongs to something else than a file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError("it is not a file")
    # A name that is nearly as long as names may be stays short enough.
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        # Whatever stops it, also Ctrl-C, leaves no other file behind.
        with suppress(OSError):
            temporary.unlink()
        raise
