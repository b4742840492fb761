"""A private PostgreSQL server for tests: in a temporary directory, on a Unix socket only, removed even if the tests are killed."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import attrs
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

_VERSIONS: Final = Path("/usr/lib/postgresql")
"""Debian's programs, in a directory for each version."""
_USER: Final = 65534
"""The user, and its group, that own nothing: runs the server for tests of root, for whom PostgreSQL does not run."""
_SETTINGS: Final = (
    "listen_addresses=''",
    # Tests kill processes, not machines.
    "fsync=off",
    "full_page_writes=off",
    "autovacuum=off",
    "shared_buffers=16MB",
)
_ACCESS: Final = "local all with_password scram-sha-256\nlocal all all trust\n"
_GUARD: Final = """
trap '' HUP INT TERM
programs=$1 directory=$2 access=$3 settings=$4
{
  "$programs/initdb" --pgdata="$directory/data" --username=postgres --encoding=UTF8 --locale=C --auth=trust --no-sync &&
  printf %s "$access" >"$directory/data/pg_hba.conf" &&
  printf '%s\\n' "$settings" "unix_socket_directories='$directory'" >>"$directory/data/postgresql.conf" &&
  "$programs/pg_ctl" start --pgdata="$directory/data" --log="$directory/log"
} >"$directory/output" 2>&1 && echo ready || cat "$directory/output" "$directory/log"
# Until this pipe ends: it is closed at the end of the tests, or by the system when their process is killed.
cat >"$directory/output"
"$programs/pg_ctl" stop --pgdata="$directory/data" --mode=immediate >"$directory/output"
rm -r "$directory"
"""
_numbers: Final = itertools.count(1)


@attrs.frozen
class PostgresqlServer:
    """A running server, whose superuser is ``postgres``. Made by `open_postgresql`."""

    programs: Path
    directory: Path

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "", **more: object) -> str:
        """The URL of a database, as it is in ``galaxy.toml``."""
        who = f"{user}:{quote(password, safe='')}" if password else user
        query = "".join(f"&{name}={quote(str(value))}" for name, value in more.items())
        return f"postgresql+psycopg://{who}@/{database}?host={self.directory}{query}"

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement as the superuser, and return its rows."""
        import psycopg  # noqa: PLC0415

        with psycopg.connect(
            host=str(self.directory), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Stop the server; its connections are closed."""
        self._control("stop", "--mode=fast")

    def start(self) -> None:
        """Start the server after `stop`."""
        self._control("start", f"--log={self.directory}/log")

    def _control(self, *arguments: str) -> None:
        command = [str(self.programs / "pg_ctl"), *arguments, f"--pgdata={self.directory}/data"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **_as_server())  # noqa: S603


def find_programs() -> Path:
    """Find the directory of the newest server's programs. Without one, skip the test, or fail it in CI."""
    found = [path.parent for path in _VERSIONS.glob("*/bin/initdb")]
    if found and find_spec("psycopg") is not None:
        return max(found, key=lambda path: float(path.parent.name))
    reason = 'PostgreSQL is not installed: apt-get install postgresql, and pip install "galaxy_trio[postgres]"'
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def unique_name() -> str:
    """A name that no other test uses, for a cluster, a database or a user."""
    return f"t{next(_numbers)}"


@contextmanager
def open_postgresql(*, is_durable: bool = False) -> Generator[PostgresqlServer]:
    """Run a server inside the block. A process of its own stops and removes it, whatever happens to this one.

    Args:
        is_durable: Whether what is committed survives a failure of the machine, which takes time.
    """
    programs = find_programs()
    # Not pytest's directory, which only its owner may enter; and the name of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="galaxy-pg-"))
    if os.geteuid() == 0:
        os.chown(directory, _USER, _USER)
    guard = [
        "sh",
        "-c",
        _GUARD,
        "guard",
        str(programs),
        str(directory),
        _ACCESS,
        "\n".join(_SETTINGS if not is_durable else _SETTINGS[:1]),
    ]
    with subprocess.Popen(  # noqa: S603
        guard, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, **_as_server()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            answer = process.stdout.readline()
            if answer != "ready\n":
                process.stdin.close()
                raise AssertionError(answer + process.stdout.read())
            yield PostgresqlServer(programs, directory)
        finally:
            process.stdin.close()
            process.wait()


def _as_server() -> dict[str, Any]:
    """Arguments of `subprocess` for the server's programs: another user than root, and none of our environment."""
    arguments: dict[str, Any] = {"env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, "cwd": "/"}
    if os.geteuid() == 0:
        arguments |= {"user": _USER, "group": _USER, "extra_groups": []}
    return arguments
