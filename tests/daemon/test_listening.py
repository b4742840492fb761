"""The daemon's listeners: addresses, stale sockets, permissions and errors."""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path

import pytest
import trio

from galaxy_trio.daemon.web.listening import Address, ListenError, open_listeners, parse_address

pytestmark = pytest.mark.daemon


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("unix:/run/x.sock", Address(Path("/run/x.sock")), "unix:/run/x.sock"),
        ("127.0.0.1:8765", Address(None, "127.0.0.1", 8765), "http://127.0.0.1:8765"),
        ("[::1]:0", Address(None, "::1", 0), "http://[::1]:0"),
        ("localhost:65535", Address(None, "localhost", 65535), "http://localhost:65535"),
    ],
)
def test_an_address_is_a_path_or_a_host_and_a_port(text: str, address: Address, shown: str) -> None:
    assert parse_address(text) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8765",
        ":8765",
        "localhost",
        "localhost:",
        "localhost:x",
        "localhost:-1",
        "h:65536",
        "h:\u00b2",
        "http://h:1",
    ],
)
def test_invalid_address_is_reported_with_an_example(text: str) -> None:
    with pytest.raises(ListenError, match="use unix:PATH or HOST:PORT, such as"):
        parse_address(text)


def test_path_that_is_too_long_for_a_unix_socket_is_reported() -> None:
    with pytest.raises(ListenError, match="longer than 107 bytes"):
        parse_address("unix:/" + "x" * 107)


async def _fail(address: Address, *, has_token: bool = False) -> str:
    with pytest.raises(ListenError) as caught:
        async with open_listeners(address, has_token=has_token):
            raise AssertionError("not reached")
    return str(caught.value)


async def test_unix_socket_is_restricted_to_its_owner_before_it_accepts_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    modes: list[int] = []
    original = socket.socket.listen

    def listen(self: socket.socket, backlog: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        original(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", listen)
    async with open_listeners(Address(path), has_token=False) as (address, listeners):
        assert (address, len(listeners)) == (Address(path), 1)
        async with await trio.open_unix_socket(path):
            pass
    assert modes == [0o600]
    assert not path.exists()


async def test_socket_of_a_listening_daemon_is_refused_and_stays_usable(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with open_listeners(Address(path), has_token=False) as (_, [listener]):
        assert "another daemon listens at" in await _fail(Address(path))
        # The connection that checked whether a daemon listens.
        await (await listener.accept()).aclose()
        await (await trio.open_unix_socket(path)).aclose()
        await (await listener.accept()).aclose()


async def test_socket_of_a_daemon_with_a_full_backlog_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(str(path))
        assert "another daemon listens at" in await _fail(Address(path))
        for client in waiting:
            client.close()


async def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with open_listeners(Address(path), has_token=False):
        await (await trio.open_unix_socket(path)).aclose()


async def test_file_that_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    assert "exists, and is not a socket" in await _fail(Address(path))
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "exists, and is not a socket" in await _fail(Address(link))
    assert path.read_text() == "precious"


async def test_only_the_own_socket_file_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with open_listeners(Address(path), has_token=False):
        path.unlink()
        path.write_text("another program's")
    assert path.read_text() == "another program's"
    path.unlink()
    async with open_listeners(Address(path), has_token=False):
        path.unlink()
    assert not path.exists()


async def test_missing_directory_of_a_socket_is_reported(tmp_path: Path) -> None:
    assert "No such file or directory" in await _fail(Address(tmp_path / "nowhere" / "s"))
    (tmp_path / "file").write_text("")
    assert "Not a directory" in await _fail(Address(tmp_path / "file" / "s"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), None),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
async def test_stale_socket_that_vanishes_is_replaced_and_a_forbidden_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str | None
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    def connect(_self: socket.socket, _address: str) -> None:
        if sentence is None:
            path.unlink()
        raise error

    monkeypatch.setattr(socket.socket, "connect", connect)
    if sentence is not None:
        assert sentence in await _fail(Address(path))
    else:
        async with open_listeners(Address(path), has_token=False):
            pass


async def test_port_0_is_replaced_by_the_actual_port() -> None:
    async with open_listeners(Address(None, "127.0.0.1", 0), has_token=False) as (address, [listener]):
        assert address.port == listener.socket.getsockname()[1] > 0


async def test_port_in_use_is_reported() -> None:
    async with open_listeners(Address(None, "127.0.0.1", 0), has_token=False) as (address, _):
        assert "another program listens there: stop it, or use another port" in await _fail(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.5.5.5"])
async def test_loopback_needs_no_token(host: str) -> None:
    async with open_listeners(Address(None, host, 0), has_token=False):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
async def test_address_that_other_machines_can_reach_needs_a_token(host: str) -> None:
    assert "there is no token: set token_file" in await _fail(Address(None, host, 0))
    async with open_listeners(Address(None, host, 0), has_token=True) as (address, _):
        # The port is free again.
        pass
    async with open_listeners(address, has_token=True):
        pass


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EACCES, "Permission denied"), "only root may use ports below 1024"),
        (OSError(errno.EADDRNOTAVAIL, "not here"), "not here: use an address of this machine, such as 127.0.0.1"),
        (socket.gaierror(-2, "no such name"), "no such name: use an address of this machine, such as 127.0.0.1"),
        (OSError("odd"), "odd"),
    ],
)
async def test_reason_why_the_daemon_cannot_listen_is_reported(
    monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(trio, "open_tcp_listeners", fail)
    assert sentence in await _fail(Address(None, "127.0.0.1", 1))


async def test_unknown_host_name_is_reported() -> None:
    assert "cannot listen at http://no.such.host.invalid:0" in await _fail(Address(None, "no.such.host.invalid", 0))
