"""Deliberate breakages of the package, one at a time, which the simulation must find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar
from unittest import mock

import trio
import trio.testing

from galaxy_trio import ConnectionLost
from galaxy_trio._concurrency.cancel_group import CancelGroup
from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio._connection.requests import Requests
from galaxy_trio._transport.frames import text_frame
from galaxy_trio._transport.send_buffer import BufferedStream
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.constellation import task as task_module
from galaxy_trio.constellation.ranked_queue import Rank, next_rank
from galaxy_trio.constellation.slots import Lease, Place, Slot, Slots
from galaxy_trio.constellation.task import NotSent, Task
from galaxy_trio.constellation.task_runner import TaskRunner
from galaxy_trio.events import EventFanOut
from galaxy_trio.messages import ServerMessage
from galaxy_trio.server.sessions import Sessions
from tests.simulation.patching import Mutation, both
from tests.simulation.pool_mutations import POOL_MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from galaxy_trio._connection.connection import SentTask
    from galaxy_trio._connection.request_types import Reply, Request, RequestKind, Routing
    from galaxy_trio.messages import ClientMessage, TaskResult

T = TypeVar("T")


def register_after_send() -> AbstractContextManager[object]:
    """A request is registered in a later scheduler pass than the one in which it is sent."""

    async def send(self: Requests, message: ClientMessage, kind: RequestKind, key: str, timeout: float) -> Request:
        del timeout
        await self._link.send(message, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        request = self._replies.register(kind, key)
        self._replies.hand_over(request)
        return request

    return mock.patch.object(Requests, "send", send)


def forget_to_remove_on_cancel() -> AbstractContextManager[object]:
    """A cancelled request stays in the table."""
    return mock.patch.object(PendingReplies, "abandon", return_value=None)


def route_by_kind() -> AbstractContextManager[object]:
    """A reply goes to any request of its kind."""

    def find(self: PendingReplies, key: str | None, kind: RequestKind) -> Request | None:
        del key
        return next((each for each in self._waiting.values() if each.kind is kind and each.handed_over), None)

    return mock.patch.object(PendingReplies, "_find", find)


def do_not_end_waiters_on_close() -> AbstractContextManager[object]:
    """Pending requests are not notified when the connection ends."""

    def close(self: PendingReplies, error: Callable[[], Exception]) -> None:
        self._closed = error
        self._waiting.clear()

    return mock.patch.object(PendingReplies, "close", close)


def release_a_slot_twice() -> AbstractContextManager[object]:
    """Releasing a slot makes two free slots of it."""
    release = Slots.release

    def release_twice(self: Slots, slot: Slot) -> None:
        self._size += 1
        release(self, slot)
        release(self, Slot(slot.number + 100))

    return mock.patch.object(Slots, "release", release_twice)


def send_again_after_loss() -> AbstractContextManager[object]:
    """A task whose connection was lost is sent again, though it may have run."""
    attempt = TaskRunner.attempt

    async def attempt_again(self: TaskRunner, task: Task, lease: Lease) -> TaskResult:
        try:
            return await attempt(self, task, lease)
        except ConnectionLost:
            raise NotSent(0) from None

    return mock.patch.object(TaskRunner, "attempt", attempt_again)


def tear_a_frame() -> AbstractContextManager[object]:
    """A frame is sent in two halves, and a cancellation can come between them."""

    async def send_in_halves(
        self: Requests, message: ClientMessage | str, kind: RequestKind, key: str, timeout: float
    ) -> Request:
        del timeout
        await trio.lowlevel.checkpoint_if_cancelled()
        transport = self._link._transport
        assert isinstance(transport, TrioWebSocket)
        frame = text_frame(self._link._text(message), masked=True)
        request = self._replies.register(kind, key)
        self._replies.hand_over(request)
        transport._stream.append(frame[:10])
        await trio.lowlevel.checkpoint()
        transport._stream.append(frame[10:])
        return request

    return mock.patch.object(Requests, "send", send_in_halves)


def lose_a_wake_up() -> AbstractContextManager[object]:
    """A released slot is not given to the first in the queue."""

    def release(self: Slots, slot: Slot) -> None:
        self._free.append(slot)

    return mock.patch.object(Slots, "release", release)


def blame_the_newest() -> AbstractContextManager[object]:
    """The server's error goes to the request that was sent last."""
    route = PendingReplies._route_error

    def route_error(self: PendingReplies, message: ServerMessage) -> Routing:
        if len(self._order) > 1:
            self._order.rotate(1)
        return route(self, message)

    return mock.patch.object(PendingReplies, "_route_error", route_error)


def wait_for_a_subscriber() -> AbstractContextManager[object]:
    """The receiver waits for a subscriber that lags."""
    publish = EventFanOut[Any].publish
    receive = TrioWebSocket.receive
    published = 0

    def count(self: EventFanOut[Any], event: Any) -> None:
        nonlocal published
        published += 1
        publish(self, event)

    async def receive_slowly(self: TrioWebSocket) -> str | bytes:
        text = await receive(self)
        if published % 10 == 0:
            await trio.sleep(50)
        return text

    return both(
        mock.patch.object(EventFanOut, "publish", count), mock.patch.object(TrioWebSocket, "receive", receive_slowly)
    )


def take_the_acknowledgement_for_the_end() -> AbstractContextManager[object]:
    """A task's acknowledgement is taken for its end."""

    async def receive_end(self: Requests, task: Request, accepted: Callable[[], None]) -> ServerMessage:
        accepted()
        reply = await task.receive()
        assert isinstance(reply, ServerMessage)
        object.__setattr__(reply, "status", "completed")
        return reply

    return mock.patch.object(Requests, "receive_end", receive_end)


def leave_no_queue() -> AbstractContextManager[object]:
    """A cancelled caller keeps its place in the queue."""
    return mock.patch.object(Place, "leave", return_value=None)


def leak_a_slot_granted_at_cancellation() -> AbstractContextManager[object]:
    """A slot that is given in the step of a cancellation is never released."""

    def leave(self: Place) -> None:
        if self.waiting:
            self._done.set()
            self._slots.remove(self)

    return mock.patch.object(Place, "leave", leave)


def continue_sessions_of_clients_that_left() -> AbstractContextManager[object]:
    """The server continues the sessions of a client that has left."""
    return mock.patch.object(Sessions, "client_left", return_value=None)


def notify_no_waiting_caller() -> AbstractContextManager[object]:
    """Callers that wait for a removed device are not notified."""

    def close(self: Slots, error: Callable[[], Exception]) -> None:
        self._closed = error

    return mock.patch.object(Slots, "close", close)


def stop_nothing() -> AbstractContextManager[object]:
    """Tasks that run on a disconnected or removed device are not stopped."""
    return mock.patch.object(CancelGroup, "stop", return_value=None)


def free_an_abandoned_device() -> AbstractContextManager[object]:
    """The slot of an abandoned task is released before the task has ended."""

    def leave(self: TaskRunner, task: Task, lease: Lease, sent: SentTask) -> None:
        del self, lease, sent
        task.abandoned = True

    return mock.patch.object(TaskRunner, "_abandon", leave)


def deliver_twice() -> AbstractContextManager[object]:
    """A reply is also delivered to the next pending request."""
    finish = PendingReplies._finish

    def finish_two(self: PendingReplies, request: Request, reply: Reply) -> None:
        finish(self, request, reply)
        for other in self._waiting.values():
            if other.kind is request.kind and other.handed_over:
                finish(self, other, reply)
                break

    return mock.patch.object(PendingReplies, "_finish", finish_two)


def drop_frames() -> AbstractContextManager[object]:
    """The writer drops one frame in twenty."""
    append = BufferedStream.append
    count = 0

    def append_most(self: BufferedStream, frame: bytes | bytearray, *, gather: bool = False) -> None:
        nonlocal count
        count += 1
        if count % 20:
            append(self, frame, gather=gather)

    return mock.patch.object(BufferedStream, "append", append_most)


def ignore_priorities() -> AbstractContextManager[object]:
    """Tasks get their slots in the order of their acceptance alone."""

    def next_rank_of_all(priority: int) -> Rank:
        del priority
        return next_rank(0)

    return mock.patch.object(task_module, "next_rank", next_rank_of_all)


MUTATIONS: Final[dict[Mutation, int]] = {
    register_after_send: 9,
    forget_to_remove_on_cancel: 4,
    route_by_kind: 4,
    do_not_end_waiters_on_close: 2,
    release_a_slot_twice: 8,
    send_again_after_loss: 0,
    tear_a_frame: 5,
    lose_a_wake_up: 0,
    blame_the_newest: 9,
    wait_for_a_subscriber: 0,
    take_the_acknowledgement_for_the_end: 0,
    leave_no_queue: 2,
    leak_a_slot_granted_at_cancellation: 11,
    continue_sessions_of_clients_that_left: 8,
    notify_no_waiting_caller: 15,
    stop_nothing: 3,
    free_an_abandoned_device: 1,
    deliver_twice: 9,
    drop_frames: 10,
    ignore_priorities: 23,
    **POOL_MUTATIONS,
}
"""The breakages, each with a seed that finds it, which is tried first."""
