"""An MCP server's process: messages as lines over its stdin and stdout, both bounded, and the last lines of its stderr.

The SDK's own transport reads a line without a limit, and keeps neither stderr nor the exit status.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import anyio
import trio
from anyio.abc import ObjectReceiveStream, Process
from mcp.client.stdio import get_default_environment
from mcp.os.posix.utilities import terminate_posix_process_tree
from mcp.os.win32.utilities import (
    close_process_job,
    create_windows_process,
    get_windows_executable_command,
    terminate_windows_process_tree,
)
from mcp.shared.message import SessionMessage

from galaxy_trio._concurrency.background import open_background
from galaxy_trio.agent.mcp_messages import parse_messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import ByteReceiveStream, ByteSendStream
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp_types import JSONRPCMessage

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio.agent.mcp_log import ServerLog
    from galaxy_trio.agent.mcp_server import Limits, McpServer

_CHUNK: Final = 2**16
_FLUSH: Final = 0.5
"""Seconds for the last messages to be written."""
_PATIENCE: Final = 2.0
"""Seconds for a process to end by itself; then as many after SIGTERM."""
_REST: Final = 0.5
"""Seconds for what a process that has ended has written."""
_GONE: Final = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)


class ServerProcess(ObjectReceiveStream[SessionMessage]):
    """A server's process as the stream of its messages. It ends when the process ends, or sends too large a message."""

    def __init__(self, process: Process, max_message_size: int, share: MemoryShare, log: ServerLog) -> None:
        self._process = process
        self._max_message_size = max_message_size
        self._share = share
        self._log = log
        self._received = bytearray()
        self._searched = 0
        self._messages: deque[JSONRPCMessage] = deque()
        self._reading: trio.CancelScope | None = None
        self._stopped = False
        self.at_end: trio.Event = trio.Event()
        self.closed: bool = False
        """Whether the process has closed its stdout."""
        self.problem: str | None = None
        """Why the stream was ended; None if the process ended it."""

    def stop(self, problem: str | None = None) -> None:
        """End the stream of messages, as if the process had closed it."""
        if not self._stopped:
            self._stopped, self.problem = True, problem
            if self._reading is not None:
                self._reading.cancel()

    async def receive(self) -> SessionMessage:
        """Return the next message. Raises `anyio.EndOfStream` at the end."""
        await trio.lowlevel.checkpoint()
        while not self._messages:
            line = await self._next_line()
            if line is None:
                self.at_end.set()
                raise anyio.EndOfStream
            if not line.strip():
                continue
            for parsed in await parse_messages(line.decode("utf-8-sig", errors="replace")):
                if isinstance(parsed, str):
                    self._log.problem_with_output(f"ignored a line of its output: {parsed}")
                else:
                    self._messages.append(parsed)
        return SessionMessage(self._messages.popleft())

    async def _next_line(self) -> bytes | None:
        while (end := self._received.find(b"\n", self._searched)) < 0:
            self._searched = len(self._received)
            self._share.set_incoming(self._searched)
            if self._searched > self._max_message_size:
                self.stop(f"it sent a message of more than {self._max_message_size} bytes")
            data = await self._read()
            if data is None:
                return None
            self._received += data
        line = bytes(memoryview(self._received)[:end])
        del self._received[: end + 1]
        self._searched = 0
        return line

    async def _read(self) -> bytes | None:
        if self._stopped:
            return None
        with trio.CancelScope() as self._reading:
            await self._share.wait_while_too_much()
            try:
                return await cast("ByteReceiveStream", self._process.stdout).receive(_CHUNK)
            except _GONE:
                self.closed = True
        return None

    async def drain(self) -> None:
        """Read and drop the rest, so that a process that writes can end."""
        self._received.clear()
        self._share.set_incoming(0)
        with suppress(*_GONE):
            while True:
                await cast("ByteReceiveStream", self._process.stdout).receive(_CHUNK)

    async def aclose(self) -> None:
        """End the stream. The process ends with the block of `open_process`."""
        await trio.lowlevel.checkpoint()
        self.stop()


@asynccontextmanager
async def open_process(
    server: McpServer, limits: Limits, log: ServerLog
) -> AsyncGenerator[tuple[ServerProcess, MemoryObjectSendStream[SessionMessage]]]:
    """Start a server's process; end it, with the processes that it has started, with the block.

    Its stdin is closed; after 2 s it gets SIGTERM, after 2 s more SIGKILL.

    Raises:
        OSError: It cannot be started.
    """
    process = await _start(server)
    share = limits.memory.open_share()
    # No checkpoint until the `try`: the process would stay.
    messages = ServerProcess(process, limits.max_message_size, share, log)
    share.on_shortage = partial(messages.stop, limits.shortage)
    sending, to_send = anyio.create_memory_object_stream[SessionMessage](0)
    written = trio.Event()
    pipes = trio.CancelScope(shield=True)

    async def run_pipes() -> None:
        # Shielded: also when the block is cancelled, the last messages are written, and a process that writes to stderr can end.
        with pipes:
            async with trio.open_nursery() as running:
                running.start_soon(_write, process, to_send, messages, written)
                running.start_soon(_watch, process, messages)
                if process.stderr is not None:  # pragma: no branch  # none on Windows
                    running.start_soon(_read_stderr, process.stderr, log)

    async with open_background() as nursery:
        nursery.start_soon(run_pipes)
        try:
            yield messages, sending
        finally:
            with trio.CancelScope(shield=True):
                messages.stop()
                sending.close()
                async with trio.open_nursery() as draining:
                    draining.start_soon(messages.drain)
                    with trio.move_on_after(_FLUSH):
                        await written.wait()
                    log.exit_status = await _status(process) if messages.closed else process.returncode
                    await _end(process)
                    draining.cancel_scope.cancel()
                if process.stderr is not None:  # pragma: no branch  # none on Windows
                    await log.wait_stderr_ended(_REST)
                    await process.stderr.aclose()
                share.close()
            pipes.cancel()


async def _start(server: McpServer) -> Process:
    program, *arguments = server.command
    env = get_default_environment() | dict(server.env or {})
    cwd = None if server.cwd is None else os.fspath(server.cwd)
    if sys.platform == "win32":  # pragma: no cover  # Job Objects, and the names of scripts
        program = await trio.to_thread.run_sync(get_windows_executable_command, program, abandon_on_cancel=True)
        with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230  # a device
            return cast("Process", await create_windows_process(program, arguments, env, nowhere, cwd))
    return await anyio.open_process(
        [program, *arguments], env=env, cwd=cwd, stderr=subprocess.PIPE, start_new_session=True
    )


async def _write(
    process: Process,
    to_send: MemoryObjectReceiveStream[SessionMessage],
    messages: ServerProcess,
    written: trio.Event,
) -> None:
    stdin = cast("ByteSendStream", process.stdin)
    try:
        async for message in to_send:
            # Requests have been checked. A reply may contain what the server has sent, such as a lone surrogate in a method's name.
            with suppress(ValueError):
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdin.send(text.encode() + b"\n")
    except _GONE:
        # It may still run, but it gets no further request.
        messages.stop()
    finally:
        to_send.close()
        written.set()


async def _watch(process: Process, messages: ServerProcess) -> None:
    """End the messages of a process that has ended although another one has its stdout."""
    await process.wait()
    with trio.move_on_after(_REST):
        await messages.at_end.wait()
    messages.stop()


async def _read_stderr(stream: ByteReceiveStream, log: ServerLog) -> None:
    try:
        with suppress(*_GONE):
            while True:
                log.stderr(await stream.receive(_CHUNK))
    finally:
        log.stderr_ended()


async def _status(process: Process) -> int | None:
    """The exit status of a process that has closed its stdout; None if it still runs."""
    with trio.move_on_after(_REST):
        await process.wait()
    return process.returncode


async def _end(process: Process) -> None:
    with suppress(*_GONE):
        await cast("ByteSendStream", process.stdin).aclose()
    with trio.move_on_after(_PATIENCE):
        await process.wait()
    if sys.platform == "win32":  # pragma: no cover
        await terminate_windows_process_tree(process)
        close_process_job(process)
    else:
        # Also what it has started and left behind.
        await terminate_posix_process_tree(process, _PATIENCE)
    with trio.move_on_after(_PATIENCE):
        await process.wait()
    with suppress(*_GONE):
        await cast("ByteReceiveStream", process.stdout).aclose()
