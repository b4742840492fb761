"""Deliberate breakages of the package, one at a time, which the soak must find: ``nox -s soak -- --breakages``.

A breakage is applied in each process of the soak. `BREAKAGES` says what the soak must report.
"""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, cast
from unittest import mock

import trio

from galaxy_trio._connection.link import Link
from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio._connection.request_types import Request
from galaxy_trio.agent.command_runner import CommandRunner
from galaxy_trio.constellation.task_runner import TaskRunner
from galaxy_trio.messages import CommandResult, ResultStatus, ServerMessage, TaskStatus
from galaxy_trio.server.client_handler import ClientHandler
from galaxy_trio.server.registry import Registry
from galaxy_trio.server.sessions import End, Sessions
from tests.simulation.mutations import send_again_after_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from galaxy_trio.constellation.slots import Lease
    from galaxy_trio.constellation.task import Task
    from galaxy_trio.messages import ClientMessage, Command, TaskResult
    from galaxy_trio.server.registry import Client
    from galaxy_trio.server.sessions import Session
    from tests.simulation.patching import Mutation

_EVERY: Final = 50
"""A breakage of single tasks concerns one in so many."""


class _Nth:
    """True for one call in so many."""

    def __init__(self, every: int = _EVERY) -> None:
        self._every = every
        self._calls = 0

    def __call__(self) -> bool:
        self._calls += 1
        return self._calls % self._every == 0


# Tasks.


def notify_no_caller_of_a_lost_connection() -> AbstractContextManager[object]:
    """Pending requests are not notified when their connection ends."""
    close = PendingReplies.close

    def close_silently(self: PendingReplies, error: Callable[[], Exception]) -> None:
        with mock.patch.object(Request, "deliver"):
            close(self, error)

    return mock.patch.object(PendingReplies, "close", close_silently)


def drop_an_end() -> AbstractContextManager[object]:
    """The server does not send the end of one task in fifty."""
    send_end, dropped = Sessions._send_end_to, _Nth()

    async def send_most(self: Sessions, client: Client, end: ServerMessage) -> None:
        if not dropped():
            await send_end(self, client, end)

    return mock.patch.object(Sessions, "_send_end_to", send_most)


def return_the_previous_result() -> AbstractContextManager[object]:
    """One task in fifty ends with the result of the one before it."""
    call, wrong = Sessions._call, _Nth()
    previous = End(TaskStatus.COMPLETED)

    async def call_most(self: Sessions, session: Session) -> End:
        nonlocal previous
        end = await call(self, session)
        previous, before = end, previous
        return before if wrong() else end

    return mock.patch.object(Sessions, "_call", call_most)


def report_a_task_that_was_not_done() -> AbstractContextManager[object]:
    """One command in fifty succeeds on its device without being run."""
    run, skipped = CommandRunner.run, _Nth()

    async def run_most(self: CommandRunner, command: Command) -> CommandResult:
        if skipped() and command.parameters is not None:
            result = command.parameters["request"]
            return CommandResult(ResultStatus.SUCCESS, result=result, call_id=command.call_id)
        return await run(self, command)

    return mock.patch.object(CommandRunner, "run", run_most)


def run_a_rejected_task() -> AbstractContextManager[object]:
    """The server rejects one task in fifty, and runs it."""
    start_task, rejected = ClientHandler._start_task, _Nth()

    def start_and_reject(self: ClientHandler, message: ClientMessage, client: Client) -> None:
        target = self._registry.get(message.target_id or "")
        if target is None or not rejected():
            start_task(self, message, client)
            return
        self._refuse("the server is busy")
        self._sessions.start(message.session_id or "", message.request or "", None, client, target)

    return mock.patch.object(ClientHandler, "_start_task", start_and_reject)


def keep_a_slot_of_a_lost_task() -> AbstractContextManager[object]:
    """The slot of a task that fails is not released."""
    attempt = TaskRunner.attempt

    async def attempt_and_keep(self: TaskRunner, task: Task, lease: Lease) -> TaskResult:
        try:
            return await attempt(self, task, lease)
        except Exception:
            lease.hold()
            raise

    return mock.patch.object(TaskRunner, "attempt", attempt_and_keep)


# Connections.


def _for_each_connection(leak: Callable[[Link[ServerMessage]], object]) -> AbstractContextManager[object]:
    make = cast("Callable[..., None]", vars(Link)["__init__"])

    def make_and_leak(self: Link[ServerMessage], *arguments: object, **options: object) -> None:
        make(self, *arguments, **options)
        leak(self)

    return mock.patch.object(Link, "__init__", make_and_leak)


def leak_a_descriptor() -> AbstractContextManager[object]:
    """Each connection leaves a file descriptor open."""
    return _for_each_connection(lambda _: os.open(os.devnull, os.O_RDONLY))


def leak_a_task() -> AbstractContextManager[object]:
    """Each connection leaves a trio task."""
    return _for_each_connection(lambda _: trio.lowlevel.spawn_system_task(trio.sleep_forever))


def leak_a_thread() -> AbstractContextManager[object]:
    """Each connection leaves a thread."""
    return _for_each_connection(lambda _: threading.Thread(target=threading.Event().wait, daemon=True).start())


def leak_the_connection() -> AbstractContextManager[object]:
    """Each connection stays in a list."""
    kept: list[Link[ServerMessage]] = []
    return _for_each_connection(kept.append)


def keep_a_lost_client() -> AbstractContextManager[object]:
    """One client in ten stays registered when its connection is lost."""
    remove, kept = Registry.remove, _Nth(10)

    def remove_most(self: Registry, client: Client) -> None:
        if not kept():
            remove(self, client)

    return mock.patch.object(Registry, "remove", remove_most)


# Memory.


def keep_each_task() -> AbstractContextManager[object]:
    """Each task of a constellation stays in a list."""
    attempt = TaskRunner.attempt
    kept: list[Task] = []

    async def attempt_and_keep(self: TaskRunner, task: Task, lease: Lease) -> TaskResult:
        kept.append(task)
        return await attempt(self, task, lease)

    return mock.patch.object(TaskRunner, "attempt", attempt_and_keep)


def keep_words_of_each_task() -> AbstractContextManager[object]:
    """Thirty short strings of each of the server's tasks stay in a list."""
    start = Sessions.start
    kept: list[str] = []

    def start_and_keep(
        self: Sessions, session_id: str, request: str, task_name: str | None, owner: Client, device: Client
    ) -> None:
        kept.extend(session_id[-length:] for length in range(10, 40))
        start(self, session_id, request, task_name, owner, device)

    return mock.patch.object(Sessions, "start", start_and_keep)


BREAKAGES: Final[Mapping[Mutation, str]] = {
    notify_no_caller_of_a_lost_connection: "have no ending",
    drop_an_end: "have no ending",
    keep_a_slot_of_a_lost_task: "running tasks",
    send_again_after_loss: "began twice",
    return_the_previous_result: "got another task's result",
    report_a_task_that_was_not_done: "were reported as completed and were not done by their device",
    run_a_rejected_task: "were rejected and ran",
    leak_a_descriptor: "descriptors (",
    leak_a_task: "tasks (",
    leak_a_thread: "threads (",
    leak_the_connection: "galaxy_trio._connection.link.Link",
    keep_a_lost_client: "registered clients without a connection",
    keep_each_task: "galaxy_trio.constellation.task.Task",
    keep_words_of_each_task: "blocks of memory",
}
"""What the soak must report of each breakage."""


def break_package(name: str) -> AbstractContextManager[object]:
    """Break the package in the block, as the breakage of this name does. An empty name breaks nothing."""
    return next(breakage for breakage in BREAKAGES if breakage.__name__ == name)() if name else nullcontext()
