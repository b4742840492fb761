"""Where the daemon listens: a Unix socket for its owner alone, or a TCP port."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from galaxy_trio import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

_UNIX: Final = "unix:"
_LONGEST_PATH: Final = 107
"""Bytes of a Unix socket's path, where Linux ends."""
_BACKLOG: Final = 128


class ListenError(ConfigError):
    """The daemon cannot listen there; says why, and what helps."""


@attrs.frozen
class Address:
    """Where to listen.

    Attributes:
        path: Of a Unix socket; `None`: it is a TCP port.
        host: A name or an IP address.
        port: 0 takes any that is free.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``unix:PATH`` or ``HOST:PORT``.

    Raises:
        ListenError: It is neither.
    """
    if text.startswith(_UNIX):
        path = Path(text.removeprefix(_UNIX)).absolute()
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise ListenError(f"the path {path} is longer than the {_LONGEST_PATH} bytes that a Unix socket's may have")
        return Address(path)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 0xFFFF:
        raise ListenError(f"{text!r} is no address to listen at: give unix:PATH or HOST:PORT, such as 127.0.0.1:8765")
    return Address(None, host, int(port))


@asynccontextmanager
async def open_listeners(
    address: Address, *, has_token: bool
) -> AsyncGenerator[tuple[Address, list[trio.SocketListener]]]:
    """Listen, for the length of the block.

    Returns:
        The address with the port that it really has, and the listeners.

    Raises:
        ListenError: It is taken, or open to other machines while there is no token, or does not do for another reason.
    """
    if address.path is not None:
        with _unix_socket(address.path) as listening:
            async with trio.SocketListener(trio.socket.from_stdlib_socket(listening)) as listener:
                yield address, [listener]
        return
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as error:
        reason = _reasons(error)
        raise ListenError(f"the daemon cannot listen at {address}: {reason}") from error
    try:
        if not has_token:
            _check_loopback(address, listeners)
        port: int = listeners[0].socket.getsockname()[1]
        yield attrs.evolve(address, port=port), listeners
    finally:
        for listener in listeners:
            listener.socket.close()


def _reasons(error: OSError) -> str:
    """Of all that there was to listen at."""
    errors = [error, *(inner for inner in _inner(error) if isinstance(inner, OSError))]
    if any(one.errno == errno.EADDRINUSE for one in errors):
        return "something else listens there: stop it, or take another port"
    if any(one.errno == errno.EACCES for one in errors):
        return "ports below 1024 are for root: take another"
    return errors[-1].strerror or str(errors[-1])


def _inner(error: OSError) -> tuple[BaseException, ...]:
    cause: object = error.__cause__
    return cast("BaseExceptionGroup[BaseException]", cause).exceptions if isinstance(cause, BaseExceptionGroup) else ()


def _check_loopback(address: Address, listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        host: str = listener.socket.getsockname()[0]
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            raise ListenError(
                f"{address} is open to other machines, and there is no token: set token_file, or listen at 127.0.0.1 or unix:PATH"
            )


@contextmanager
def _unix_socket(path: Path) -> Generator[socket.socket]:
    """Listen for this user alone. The file goes with the block, if it is still this one's."""
    _make_way(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listening.bind(os.fspath(path))
        except OSError as error:
            raise ListenError(f"the daemon cannot listen at {_UNIX}{path}: {error.strerror}") from error
        mine = path.stat()
        try:
            # Nobody can connect before it listens.
            path.chmod(0o600)
            listening.listen(_BACKLOG)
            yield listening
        finally:
            with suppress(FileNotFoundError):
                there = path.stat()
                if (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev):
                    path.unlink()
    finally:
        listening.close()


def _make_way(path: Path) -> None:
    """Remove a socket that nobody listens at any more; and nothing else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"the daemon cannot listen at {_UNIX}{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"{path} is there already, and is no socket: name another path, or move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        # It answers at once, or its backlog is full, which is an answer too.
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
                raise ListenError(f"the daemon cannot listen at {_UNIX}{path}: {error.strerror}") from error
    raise ListenError(f"another daemon listens at {_UNIX}{path}: stop it, or name another path")
