"""Connections are accepted again when the system has room for them, and its lack fills no log."""

from __future__ import annotations

import errno
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio._concurrency.accepting import serve_listeners
from tests.support.accepting import fail_to_accept
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from trio.testing import MockClock

LOGGER = logging.getLogger("galaxy_trio.test")


async def _greet(stream: trio.SocketStream) -> None:
    await stream.send_all(b"hello")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_lack_of_file_descriptors_is_logged_once_and_counted_and_then_connections_are_accepted(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    fail_to_accept(monkeypatch, number, 50)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        serve = partial(serve_listeners, _greet, [listener], handler_nursery=nursery, logger=LOGGER)
        await nursery.start(serve)
        async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
            assert await stream.receive_some() == b"hello"
            assert await stream.receive_some() == b""
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert caplog.messages == [
        f"a connection cannot be accepted: {os.strerror(number)}: close some, or raise the limit",
        "49 more problems like the last one not logged",
    ]
    assert "Traceback" not in caplog.text
    assert listener.socket.fileno() == -1


async def test_other_errors_of_a_listener_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_accept(monkeypatch, errno.EBADF, 1)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.RaisesGroup(pytest.RaisesGroup(OSError)):
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + SECONDS
            await serve_listeners(_greet, [listener], handler_nursery=nursery, logger=LOGGER)
