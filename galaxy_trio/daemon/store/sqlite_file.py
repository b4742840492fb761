"""Locks SQLite's file against other daemons, and refuses one that other users can read or write."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from galaxy_trio.daemon.store.database import DatabaseInUse, StoreError

if TYPE_CHECKING:
    from collections.abc import Generator

_SUFFIXES: Final = ("-wal", "-shm", "-journal")
"""SQLite's further files for a database."""
_locked: Final[set[tuple[int, int]]] = set()
"""The devices and inodes of the files that this process has locked."""


@contextmanager
def lock(path: Path) -> Generator[None]:
    """Lock the database against other daemons inside the block, and create it for its owner alone if it does not exist.

    The lock belongs to the file, whatever its names are. The operating system releases it when the process ends. SQLite may have the file
    open inside the block only: closing any descriptor of a file drops all POSIX locks that the process has on it, and SQLite's are such
    locks.

    Raises:
        DatabaseInUse: Another daemon has the lock.
        StoreError: The file is not a regular one, or others can read or write it or one of SQLite's further files, or it cannot be opened.
    """
    number = _open(path)
    try:
        found = os.fstat(number)
        _check_access(path, found)
        # SQLite puts them next to the file, not next to a symbolic link.
        real = Path(os.path.realpath(path))
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                further = real.with_name(real.name + suffix)
                _check_access(further, further.lstat())
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(path) from error
        except OSError as error:
            raise StoreError(f"the database {path} cannot be locked: {error.strerror}") from error
        _check_names(path, real, found)
        identity = (found.st_dev, found.st_ino)
        _locked.add(identity)
        try:
            yield
        finally:
            _locked.remove(identity)
    finally:
        os.close(number)


def _check_names(path: Path, real: Path, found: os.stat_result) -> None:
    """Refuse a file whose latest changes may be next to another of its names, and a new one next to which are those of a deleted file."""
    if found.st_nlink > 1:
        raise StoreError(
            f"the database {path} has {found.st_nlink} names (hard links), and SQLite keeps its latest changes next to one of them: "
            "remove the others, or copy the file"
        )
    if not found.st_size and any(real.with_name(real.name + suffix).exists() for suffix in _SUFFIXES):
        raise StoreError(
            f"the database {path} was deleted, but not what belongs to it: stop the daemon that uses it, if there is one, "
            f"and move {real.name}-wal and {real.name}-shm away"
        )


def check_directory(path: Path) -> None:
    """Check whether the database's directory is there, and whether SQLite could create files in it.

    Raises:
        StoreError: It could not.
    """
    folder = Path(os.path.realpath(path)).parent
    failure = f"the database {path} cannot be opened"
    if not folder.exists():
        raise StoreError(f"{failure}: there is no directory {folder}: create it, or configure another path")
    if not folder.is_dir():
        raise StoreError(f"{failure}: {folder} is not a directory: configure another path")
    # SQLite creates its further files there as well.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"{failure}: give the daemon's user permission to write to the directory {folder}")


def _open(path: Path) -> int:
    try:
        with suppress(FileNotFoundError):
            found = path.stat()
            # Opening a device may have effects. Opening a directory fails below.
            if not stat.S_ISDIR(found.st_mode):
                _check_kind(path, found)
            if (found.st_dev, found.st_ino) in _locked:
                raise _in_use(path)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    except OSError as error:
        raise StoreError(f"the database {path} cannot be opened: {error.strerror}") from error


def _in_use(path: Path) -> StoreError:
    return DatabaseInUse(f"another daemon uses the database {path}: stop it, or configure another path")


def _check_kind(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"the database {path} is not a regular file: configure another path")


def _check_access(path: Path, found: os.stat_result) -> None:
    _check_kind(path, found)
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(f"other users can read or write the database {path}: run chmod 600 {path}")
