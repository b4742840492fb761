"""The database's file: its lock, its permissions and its kind."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from sqlalchemy import Engine

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.store import add_task, queued_tasks
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.daemon

_OPEN_IN_A_PROCESS = """
import sys, trio
from pathlib import Path
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import open_store

async def main():
    try:
        async with open_store(Path(sys.argv[1])):
            print("opened")
    except StoreError as error:
        print(error)

trio.run(main)
"""


async def _refusal(path: Path) -> str:
    with trio.fail_after(SECONDS), pytest.raises(StoreError) as caught:
        async with open_store(path):
            raise AssertionError("not reached")
    return str(caught.value)


async def _open_in_another_process(path: Path) -> str:
    command = [sys.executable, "-c", _OPEN_IN_A_PROCESS, str(path)]
    with trio.fail_after(SECONDS):
        return (await trio.run_process(command, capture_stdout=True)).stdout.decode().strip()


def _same(path: Path) -> Path:
    return path


def _symbolic_link(path: Path) -> Path:
    link = path.with_name("symbolic")
    link.symlink_to(path)
    return link


def _hard_link(path: Path) -> Path:
    link = path.with_name("hard")
    link.hardlink_to(path)
    return link


def _directory_link(path: Path) -> Path:
    link = path.parent / "elsewhere"
    link.symlink_to(path.parent)
    return link / path.name


@pytest.mark.parametrize("other_name", [_same, _symbolic_link, _hard_link, _directory_link])
async def test_second_store_with_the_same_file_is_refused_by_whatever_name(
    tmp_path: Path, other_name: Callable[[Path], Path]
) -> None:
    path = tmp_path / "db"
    async with open_store(path) as store:
        name = other_name(path)
        for _ in range(2):
            assert "another daemon uses the database" in await _refusal(name)
        assert f"another daemon uses the database {name}" in await _open_in_another_process(name)
        await add_task(store)
    if other_name is _hard_link:
        # SQLite would not find the latest changes, which are next to the other name.
        for refused in (name, path):
            assert "has 2 names (hard links)" in await _refusal(refused)
        name.unlink()
        name = path
    assert await _open_in_another_process(name) == "opened"
    async with open_store(path) as store:
        assert len(await queued_tasks(store)) == 1


async def test_deleted_database_accepts_nothing_and_its_name_is_free_when_no_store_uses_what_belonged_to_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    async with open_store(path) as store:
        await add_task(store)
        path.unlink()
        assert f"the database {path} was deleted, but not what belongs to it" in await _refusal(path)
        for replaced in (True, False):
            assert path.exists() is replaced
            with pytest.raises(StoreError, match="was deleted or replaced while the daemon used it"):
                await add_task(store)
            with pytest.raises(StoreError, match="was deleted or replaced"):
                await store.check_writable()
            path.unlink(missing_ok=True)
        assert len(await queued_tasks(store)) == 1
    assert "and move db-wal and db-shm away" in await _refusal(path)
    for name in _modes(tmp_path):
        (tmp_path / name).unlink()
    assert await _open_in_another_process(path) == "opened"


async def test_file_is_locked_until_sqlite_has_closed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db"
    disposed: list[bool] = []
    dispose = Engine.dispose

    def dispose_while_locked(engine: Engine) -> None:
        dispose(engine)
        with path.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        disposed.append(True)

    monkeypatch.setattr(Engine, "dispose", dispose_while_locked)
    async with open_store(path):
        disposed.clear()
    assert disposed
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_number: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert await _refusal(tmp_path / "db") == f"the database {tmp_path / 'db'} cannot be locked: No locks available"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists the locks")
async def test_sqlite_keeps_its_own_locks_when_a_second_store_in_the_process_is_refused(tmp_path: Path) -> None:
    def locks() -> list[str]:
        lines = Path("/proc/locks").read_text().splitlines()
        return sorted(line.split()[1] for line in lines if f":{(tmp_path / 'db').stat().st_ino} " in line)

    async with open_store(tmp_path / "db") as store:
        await add_task(store)
        before = locks()
        assert {"FLOCK", "POSIX"} <= set(before)
        await _refusal(tmp_path / "db")
        assert locks() == before


def _modes(directory: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


async def test_only_the_owner_can_read_the_database(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with open_store(tmp_path / "db") as store:
            await add_task(store)
            assert _modes(tmp_path) == {"db": 0o600, "db-wal": 0o600, "db-shm": 0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o666])
@pytest.mark.parametrize("name", ["db", "db-wal", "db-shm", "db-journal"])
async def test_database_that_others_can_read_or_write_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    async with open_store(tmp_path / "db"):
        pass
    file = tmp_path / name
    file.touch()
    file.chmod(mode)
    link = _symbolic_link(tmp_path / "db")
    for path in (tmp_path / "db", link):
        shown = path if name == "db" else file
        assert await _refusal(path) == f"other users can read or write the database {shown}: run chmod 600 {shown}"
    file.chmod(0o600)
    async with open_store(tmp_path / "db"):
        pass


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _device])
@pytest.mark.parametrize("name", ["db", "db-wal"])
async def test_fifo_or_device_is_refused_immediately_and_is_not_opened(
    tmp_path: Path, make: Callable[[Path], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / name)
    opened: list[object] = []
    original = os.open

    def note(path: str, *arguments: int) -> int:
        opened.append(path)
        return original(path, *arguments)

    monkeypatch.setattr(os, "open", note)
    assert (
        await _refusal(tmp_path / "db")
        == f"the database {tmp_path / name} is not a regular file: configure another path"
    )
    assert tmp_path / name not in opened
