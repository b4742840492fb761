"""Opens copies of a database of version 1, and is killed at each line of the upgrade: ``python killed_upgrade.py DATABASE DIRECTORY``.

For each copy it prints the version in which the kill left it, or 0 for the last copy, whose upgrade was not killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import galaxy_trio.daemon.store.backup
import galaxy_trio.daemon.store.migrations.version_2
import galaxy_trio.daemon.store.sqlite
from galaxy_trio.daemon.store.sqlite import Sqlite
from galaxy_trio.daemon.store.sqlite_file import lock
from tests.daemon.support.old_database import rows_of_version_1, version_of

if TYPE_CHECKING:
    from types import FrameType

_FILES = {
    str(module.__file__)
    for module in (
        galaxy_trio.daemon.store.backup,
        galaxy_trio.daemon.store.sqlite,
        galaxy_trio.daemon.store.migrations,
        galaxy_trio.daemon.store.migrations.version_2,
    )
}


def _open(path: Path) -> None:
    with lock(path):
        Sqlite(path)._connect().dispose()


def _killed_at(line: int, path: Path) -> bool:
    """Open the database in another process, which is killed when it is about to execute this line, counted from the first."""
    child = os.fork()
    if not child:
        left = line

        def trace(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in _FILES:
                return None
            if event == "line":
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        with suppress(BaseException):
            _open(path)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"the upgrade fails without a kill at line {line}")
    return os.WIFSIGNALED(status)


def main() -> None:
    original, directory = map(Path, sys.argv[1:])
    # Once, instead of in each of the processes.
    import_module("alembic.operations")
    line = 0
    killed = True
    while killed:
        line += 1
        path = directory / str(line) / "db"
        path.parent.mkdir()
        shutil.copy(original, path)
        killed = _killed_at(line, path)
        sys.stdout.write(f"{version_of(path) if killed else 0}\n")
        # The next daemon finds all tasks, whatever the kill has left.
        _open(path)
        for found in (path, path.with_name("db.version-1")):
            if rows_of_version_1(found) != rows_of_version_1(original):
                raise AssertionError(f"tasks are missing in {found} after a kill at line {line}")


if __name__ == "__main__":
    main()
