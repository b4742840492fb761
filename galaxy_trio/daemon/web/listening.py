"""Opens the daemon's listeners: a Unix socket, by default for its owner alone, or a TCP port."""

from __future__ import annotations

import errno
import ipaddress
import os
import shutil
import socket
import stat
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from galaxy_trio import ConfigError
from galaxy_trio._config.hosts import parse_host_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

UNIX: Final = "unix:"
"""The beginning of the address of a Unix socket."""
_MAX_PATH: Final = 107
"""Maximum bytes of a Unix socket's path on Linux."""
_BACKLOG: Final = 128
_IN_USE: Final = "another program listens there: stop it, or use another port"


class ListenError(ConfigError):
    """The daemon cannot listen at the address; the message gives the reason and what to do."""


class AddressInUse(ListenError):
    """Another program listens at the address."""


@attrs.frozen
class Address:
    """An address to listen at.

    Attributes:
        path: The path of a Unix socket; `None` for a TCP port.
        host: A host name or an IP address.
        port: A port; 0 for any free one.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"{UNIX}{self.path}"
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``unix:PATH`` or ``HOST:PORT``.

    Raises:
        ListenError: The text is neither, or the path is too long.
    """
    if text.startswith(UNIX):
        path = Path(text.removeprefix(UNIX)).absolute()
        if len(os.fsencode(path)) > _MAX_PATH:
            raise ListenError(
                f"the path {path} is longer than {_MAX_PATH} bytes, the maximum for a Unix socket: use a shorter one"
            )
        return Address(path)
    if "/" in text or "@" in text:
        # Not shown: it may contain a password.
        raise ListenError("an address is no URL: use unix:PATH or HOST:PORT, such as 127.0.0.1:8765")
    name, _, port = text.rpartition(":")
    host = name.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdecimal() and int(port) <= 0xFFFF
    if not is_port or parse_host_name(f"[{host}]" if ":" in host else host) is None:
        raise ListenError(f"{text!r} is not an address: use unix:PATH or HOST:PORT, such as 127.0.0.1:8765")
    return Address(None, host, int(port))


@asynccontextmanager
async def open_listeners(
    address: Address, *, has_token: bool, socket_mode: int = 0o600, socket_group: str | None = None
) -> AsyncGenerator[tuple[Address, list[trio.SocketListener]]]:
    """Listen inside the block.

    Args:
        address: Where to listen.
        has_token: Whether clients must send a token.
        socket_mode: The mode of a Unix socket's file: who may write to it may connect.
        socket_group: The name or the number of its group; `None` for the group of the process.

    Yields:
        The address with its actual port, and the listeners.

    Raises:
        ListenError: The address is in use, or reachable from other machines without a token, or cannot be used for another reason.
    """
    if address.path is not None:
        with _unix_socket(address.path, socket_mode, socket_group) as listening:
            async with trio.SocketListener(trio.socket.from_stdlib_socket(listening)) as listener:
                yield address, [listener]
        return
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as error:
        reason = _reasons(error)
        kind = AddressInUse if reason == _IN_USE else ListenError
        raise kind(f"the daemon cannot listen at {address}: {reason}") from error
    except UnicodeError as error:
        raise ListenError(f"the daemon cannot listen at {address}: the host name is invalid") from error
    try:
        if not has_token:
            _check_loopback(address, listeners)
        port: int = listeners[0].socket.getsockname()[1]
        yield attrs.evolve(address, port=port), listeners
    finally:
        for listener in listeners:
            listener.socket.close()


def _reasons(error: OSError) -> str:
    """The reason why none of the host's addresses could be used."""
    errors = [error, *(inner for inner in _inner(error) if isinstance(inner, OSError))]
    if any(one.errno == errno.EADDRINUSE for one in errors):
        return _IN_USE
    if any(one.errno == errno.EACCES for one in errors):
        return "only root may use ports below 1024: use another port"
    is_elsewhere = any(one.errno == errno.EADDRNOTAVAIL or isinstance(one, socket.gaierror) for one in errors)
    reason = errors[-1].strerror or str(errors[-1])
    return f"{reason}: use an address of this machine, such as 127.0.0.1" if is_elsewhere else reason


def _inner(error: OSError) -> tuple[BaseException, ...]:
    cause: object = error.__cause__
    return cast("BaseExceptionGroup[BaseException]", cause).exceptions if isinstance(cause, BaseExceptionGroup) else ()


def _check_loopback(address: Address, listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        host: str = listener.socket.getsockname()[0]
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            raise ListenError(
                f"other machines can reach {address}, and there is no token: set token_file, or listen at 127.0.0.1 or unix:PATH"
            )


@contextmanager
def _unix_socket(path: Path, mode: int, group: str | None) -> Generator[socket.socket]:
    """Listen for the users that the mode allows. Leaving the block removes the file, unless it was replaced."""
    _remove_stale_socket(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listening.bind(os.fspath(path))
        except OSError as error:
            raise ListenError(f"the daemon cannot listen at {UNIX}{path}: {error.strerror}") from error
        created = path.stat()
        try:
            # Before `listen`, so that other users can never connect.
            _set_access(path, mode, group)
            listening.listen(_BACKLOG)
            yield listening
        finally:
            with suppress(FileNotFoundError):
                found = path.stat()
                if (found.st_ino, found.st_dev) == (created.st_ino, created.st_dev):
                    path.unlink()
    finally:
        listening.close()


def _set_access(path: Path, mode: int, group: str | None) -> None:
    """Set the mode and the group of the socket's file.

    Raises:
        ListenError: There is no such group, or this user may not give the file to it.
    """
    try:
        if group is not None:
            shutil.chown(path, group=int(group) if group.isascii() and group.isdecimal() else group)
        path.chmod(mode)
    except (LookupError, OverflowError):
        raise ListenError(
            f"the daemon cannot listen at {UNIX}{path}: there is no group {group!r}, which socket_group names"
        ) from None
    except PermissionError as error:
        raise ListenError(
            f"the daemon cannot listen at {UNIX}{path}: only a member of the group {group!r} may give it to that group; "
            "add the daemon's user to it, or leave out socket_group"
        ) from error


def _remove_stale_socket(path: Path) -> None:
    """Remove a socket that no process listens at.

    Raises:
        ListenError: Another process listens at it, or the file is not a socket.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"the daemon cannot listen at {UNIX}{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"{path} exists, and is not a socket: use another path, or move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        # `connect` returns immediately, or fails because the backlog is full; in both cases a process listens.
        trial.setblocking(False)
        try:
            trial.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise ListenError(f"the daemon cannot listen at {UNIX}{path}: {error.strerror}") from error
    raise AddressInUse(f"another daemon listens at {UNIX}{path}: stop it, or use another path")
