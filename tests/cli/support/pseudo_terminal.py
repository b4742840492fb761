"""Commands in a terminal of their own, which can be closed."""

from __future__ import annotations

import os
import pty
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from tests.cli.support.command_line import environment
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Make the terminal the controlling one, as it is for a shell's child.
_START = "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
_RUN = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


class Terminal:
    """A command in a terminal. Made by `open_terminal`."""

    def __init__(self, process: trio.Process, descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._output = b""

    async def wait_for_output(self, words: str) -> str:
        """Wait until the terminal shows these words, and return all that it shows."""

        def has_words() -> bool:
            with suppress(BlockingIOError):
                self._output += os.read(self._descriptor, 65_536)
            return words.encode() in self._output

        await until(has_words)
        return self._output.decode()

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._descriptor, keys)

    def close(self) -> None:
        """Close the terminal, as closing its window does."""
        os.close(self._descriptor)
        self._descriptor = -1

    async def end(self) -> int:
        """Wait until the command has ended, and return its status."""
        with trio.fail_after(SECONDS):
            return await self.process.wait()

    def discard(self) -> None:
        """Close the terminal if it is open."""
        if self._descriptor >= 0:
            self.close()


@asynccontextmanager
async def open_terminal(*arguments: str, prefix: str = "") -> AsyncGenerator[Terminal]:
    """Run a command in a terminal inside the block, and kill it at the end.

    Args:
        arguments: The command's words.
        prefix: Python that is executed before the command begins.
    """
    descriptor, slave = pty.openpty()
    os.set_blocking(descriptor, False)
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", f"{_START}; {prefix}\n{_RUN}", "-m", "galaxy_trio", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(),
        )
    finally:
        os.close(slave)
    terminal = Terminal(process, descriptor)
    try:
        yield terminal
    finally:
        terminal.discard()
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SECONDS):
            await process.wait()
