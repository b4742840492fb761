"""The mode and the group of the daemon's Unix socket, and the users that may connect to it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from galaxy_trio import ConfigError
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.daemon.web.listening import Address, ListenError, open_listeners
from tests.daemon.support.daemon import open_daemon
from tests.support.paths import DOCS, ROOT

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.daemon

_UNIT: Final = DOCS / "howto" / "galaxy-trio.service"
_GROUP: Final = 54321
_OTHER: Final = 54322
# Every Debian has perl, and other users may not be able to enter the environment of the tests.
_PERL: Final = shutil.which("perl")
_CONNECT: Final = """
use IO::Socket::UNIX;
my $client = IO::Socket::UNIX->new(Peer => shift) or die "$!";
print $client "GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n";
<$client> =~ /^HTTP\\/1.1 200/ or die "no answer";
"""


@pytest.fixture
def public_directory() -> Generator[Path]:
    """A directory that all users may enter, with a short path."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


async def _connect_as_another_user(path: Path, group: int) -> str:
    """Connect as a user of this group. Returns the error, empty if the daemon answers."""
    done = await trio.run_process(
        [str(_PERL), "-e", _CONNECT, str(path)],
        user=_OTHER,
        group=group,
        extra_groups=[],
        cwd="/",
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.stderr.decode() if done.returncode else ""


@pytest.mark.skipif(os.geteuid() != 0 or _PERL is None, reason="only root can become other users")
async def test_only_users_that_the_mode_and_the_group_allow_can_use_the_daemon(public_directory: Path) -> None:
    for settings, allowed in (
        ("", []),
        (f'socket_mode = "0660"\nsocket_group = "{_GROUP}"', [_GROUP]),
        ('socket_mode = "0666"', [_GROUP, _OTHER]),
    ):
        async with open_daemon(public_directory, "d1", settings=settings):
            for group in (_GROUP, _OTHER):
                error = await _connect_as_another_user(public_directory / "s", group)
                assert ("" if group in allowed else "Permission denied") in error
                assert bool(error) is (group not in allowed), error


async def test_socket_has_its_mode_and_its_group_before_it_accepts_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    found: list[os.stat_result] = []
    original = socket.socket.listen

    def look(self: socket.socket, backlog: int) -> None:
        found.append(path.stat())
        original(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    async with open_listeners(Address(path), has_token=False, socket_mode=0o660, socket_group=str(os.getegid())):
        pass
    assert [(stat.S_IMODE(one.st_mode), one.st_gid) for one in found] == [(0o660, os.getegid())]


@pytest.mark.parametrize("group", ["no-such-group", str(2**70)])
async def test_unknown_group_is_reported_and_leaves_no_socket(tmp_path: Path, group: str) -> None:
    with pytest.raises(ListenError, match=f"there is no group '{group}', which socket_group names"):
        async with open_listeners(Address(tmp_path / "s"), has_token=False, socket_group=group):
            pass
    assert not (tmp_path / "s").exists()


async def test_group_of_which_the_user_is_no_member_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(shutil, "chown", refuse)
    with pytest.raises(ListenError, match="only a member of the group '7' may give it to that group"):
        async with open_listeners(Address(tmp_path / "s"), has_token=False, socket_group="7"):
            pass


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('listen = "unix:s"\nsocket_mode = "0640"', "socket_mode: expected '0600', '0660' or '0666'"),
        ('listen = "unix:s"\nsocket_mode = 0o660', "socket_mode: expected '0600', '0660' or '0666'"),
        ('listen = "unix:s"\nsocket_group = ""', "socket_group: expected the name of a group"),
        ('socket_mode = "0660"', "socket_mode: only a Unix socket has it"),
        ('socket_group = "users"', "socket_group: only a Unix socket has it"),
    ],
)
def test_settings_of_the_socket_that_would_not_do_what_they_say_are_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "galaxy.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        read_settings(tmp_path / "galaxy.toml")


def _check_unit(path: Path, unit: str) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    assert "/opt/galaxy-trio/bin/galaxy-trio" in unit
    path.write_text(unit.replace("/opt/galaxy-trio/bin/galaxy-trio", sys.executable))
    command = [program, "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    _check_unit(tmp_path / _UNIT.name, _UNIT.read_text("utf-8"))


def test_systemd_accepts_the_template_of_several_daemons_which_have_files_of_their_own(tmp_path: Path) -> None:
    guide = (DOCS / "howto" / "cluster.md").read_text("utf-8")
    found = re.search(r"^(sed '.*') (docs/\S+\.service) > ", guide, re.MULTILINE)
    assert found is not None
    command = f"{found[1]} {ROOT / found[2]}"
    template = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607  # our own words
    assert "--config /etc/galaxy-trio/%i.toml" in template
    assert "RuntimeDirectory=galaxy-trio/%i\n" in template
    _check_unit(tmp_path / "galaxy-trio@one.service", template)


def test_configuration_in_the_unit_lets_members_of_its_group_connect(tmp_path: Path) -> None:
    unit = _UNIT.read_text("utf-8")
    lines = re.findall(r"^#     (\w+ = .*)$", unit, re.MULTILINE)
    (tmp_path / "galaxy.toml").write_text("\n".join(lines))
    settings = read_settings(tmp_path / "galaxy.toml")
    assert settings.socket_mode == 0o660
    [directory] = re.findall(r"^RuntimeDirectory=(.*)$", unit, re.MULTILINE)
    assert settings.listen == f"unix:/run/{directory}/daemon.sock"
    [state] = re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)
    assert str(settings.database) == f"/var/lib/{state}/tasks.db"
    # Entering the socket's directory must be allowed as well; systemd makes it with the mode 0755.
    assert "RuntimeDirectoryMode" not in unit
    assert "DynamicUser" not in unit
