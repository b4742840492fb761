"""Text that would control a terminal, and a server over HTTP that is no daemon and sends it."""

from __future__ import annotations

import json
import os
import re
import termios
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from tests.cli.support.command_line import command_of, environment
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

EVIL: Final = "\x1b]0;title\x07\x1b[2J<\x9b31m\x7f\x85\u202eright\u2028new\u200b\u200d\ufeff\U000e0041\u061c>"
"""An operating system command, the bell, C1, DEL, NEL, a direction override, a line separator, and what has no width."""
ID: Final = "0123456789abcdef0123456789abcdef"
"""The id of a task or of a graph."""
_OF_RICH: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_HARMFUL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]"
)


def harmful_characters(shown: str, *, coloured: bool = False) -> list[str]:
    """Return the characters in a command's output that control a terminal.

    Args:
        shown: The output.
        coloured: The output is a terminal's: it may contain colours and cursor movements.
    """
    text = shown.replace("\r\n", "\n")
    return _HARMFUL.findall(_OF_RICH.sub("", text).replace("\r", "") if coloured else text)


@attrs.define
class Answer:
    """An HTTP response.

    Attributes:
        status: The status line after the version.
        body: Sent as JSON; bytes are sent as they are.
        headers: Further header lines.
    """

    body: object
    status: str = "200 OK"
    headers: tuple[str, ...] = ()


@attrs.define
class FakeDaemon:
    """An HTTP server with prepared responses.

    Attributes:
        url: Its URL.
        answers: The responses by path, without query. Paths that are missing get a 404.
        requests: The heads of the requests that have arrived.
    """

    url: str
    answers: Mapping[str, Answer]
    requests: list[str] = attrs.field(factory=list[str])

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            self.requests.append(head.decode("latin-1"))
            path = self.requests[-1].split()[1].partition("?")[0]
            answer = self.answers.get(path, Answer({"error": "there is nothing"}, "404 Not Found"))
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            lines = [f"HTTP/1.1 {answer.status}", f"Content-Length: {len(body)}", "Connection: close", *answer.headers]
            await stream.send_all("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body)


@asynccontextmanager
async def open_fake_daemon(answers: Mapping[str, Answer]) -> AsyncGenerator[FakeDaemon]:
    """Serve prepared responses during the block."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    fake = FakeDaemon(f"http://127.0.0.1:{listener.socket.getsockname()[1]}", answers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, fake.serve, [listener])
        yield fake
        nursery.cancel_scope.cancel()


async def call_on_terminal(*arguments: str, columns: int = 80, variables: Mapping[str, str] | None = None) -> str:
    """Run a command on a pseudo-terminal to its end and return what the terminal gets: stdout and stderr.

    Args:
        arguments: The command.
        columns: The terminal's width.
        variables: Further variables of the command's environment.
    """
    terminal, its_end = os.openpty()
    termios.tcsetwinsize(its_end, (24, columns))
    shown = b""
    async with trio.lowlevel.FdStream(terminal) as screen, trio.open_nursery() as nursery:

        async def read() -> None:
            nonlocal shown
            # A terminal whose other end is closed raises an error.
            try:
                while data := await screen.receive_some():
                    shown += data
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(read)
        with trio.fail_after(SECONDS):
            try:
                await trio.run_process(
                    command_of(*arguments),
                    check=False,
                    stdin=its_end,
                    stdout=its_end,
                    stderr=its_end,
                    env={**environment(), **(variables or {})},
                )
            finally:
                os.close(its_end)
    return shown.decode()
