"""Deliberate breakages of the package, one at a time: what the simulation must find."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from unittest import mock

import trio
import trio.testing

from galaxy_trio import ConnectionLost
from galaxy_trio.buffered_stream import BufferedStream
from galaxy_trio.conversation import Conversation
from galaxy_trio.events import EventFanOut
from galaxy_trio.link import Link
from galaxy_trio.replies import PendingReplies, Reply, Request, RequestKind, Routing
from galaxy_trio.server.sessions import Sessions
from galaxy_trio.slots import Lease, Place, Slot, Slots
from galaxy_trio.stops import Stops
from galaxy_trio.task import NotSent, Task
from galaxy_trio.task_runner import TaskRunner
from galaxy_trio.text_frames import text_frame
from galaxy_trio.transport import Transport

if TYPE_CHECKING:
    from galaxy_trio.messages import ClientMessage, ServerMessage, TaskResult

T = TypeVar("T")

Mutation: TypeAlias = Callable[[], AbstractContextManager[object]]


def register_after_send() -> AbstractContextManager[object]:
    """A request is registered when the event loop comes round to it again, and not before it is sent."""

    async def send(self: Conversation, message: ClientMessage, kind: RequestKind, key: str, timeout: float) -> Request:
        del timeout
        await self._link.send(message, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        request = self._replies.register(kind, key)
        self._replies.hand_over(request)
        return request

    return mock.patch.object(Conversation, "send", send)


def forget_to_remove_on_cancel() -> AbstractContextManager[object]:
    """Whoever is cancelled leaves his request in the table."""
    return mock.patch.object(PendingReplies, "abandon", return_value=None)


def route_by_kind() -> AbstractContextManager[object]:
    """A reply goes to any request of its kind."""

    def find(self: PendingReplies, key: str | None, kind: RequestKind) -> Request | None:
        del key
        return next((each for each in self._waiting.values() if each.kind is kind and each.handed_over), None)

    return mock.patch.object(PendingReplies, "_find", find)


def do_not_end_waiters_on_close() -> AbstractContextManager[object]:
    """Nobody is told that the connection has ended."""

    def close(self: PendingReplies, error: Callable[[], Exception]) -> None:
        self._closed = error
        self._waiting.clear()

    return mock.patch.object(PendingReplies, "close", close)


def give_a_slot_back_twice() -> AbstractContextManager[object]:
    """A slot that is given back is there twice."""
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
    """A frame is sent in two halves, and cancelling comes between."""

    async def send_in_halves(
        self: Link[ServerMessage], message: ClientMessage | ServerMessage, hand_over: Callable[[], T]
    ) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.closed:
            raise self._current_error()
        assert isinstance(self._transport, Transport)
        frame = text_frame(self._text(message), masked=True)
        result = hand_over()
        self._transport._stream.append(frame[:10])
        await trio.lowlevel.checkpoint()
        self._transport._stream.append(frame[10:])
        return result

    return mock.patch.object(Link, "send", send_in_halves)


def lose_a_wake_up() -> AbstractContextManager[object]:
    """Who waits is not told of a slot that is given back."""

    def release(self: Slots, slot: Slot) -> None:
        self._free.append(slot)

    return mock.patch.object(Slots, "release", release)


def blame_the_newest() -> AbstractContextManager[object]:
    """An error of the server goes to the request that was sent last."""
    route = PendingReplies._route_error

    def route_error(self: PendingReplies, message: ServerMessage) -> Routing:
        if len(self._order) > 1:
            self._order.rotate(1)
        return route(self, message)

    return mock.patch.object(PendingReplies, "_route_error", route_error)


def wait_for_a_subscriber() -> AbstractContextManager[object]:
    """The receiver waits for a subscriber that lags."""
    publish = EventFanOut.publish
    receive = Transport.receive
    published = 0

    def count(self: EventFanOut, event: Any) -> None:
        nonlocal published
        published += 1
        publish(self, event)

    async def receive_slowly(self: Transport) -> str | bytes:
        text = await receive(self)
        if published % 10 == 0:
            await trio.sleep(50)
        return text

    return _both(
        mock.patch.object(EventFanOut, "publish", count), mock.patch.object(Transport, "receive", receive_slowly)
    )


def take_the_acknowledgement_for_the_end() -> AbstractContextManager[object]:
    """A task has ended when the server has accepted it."""

    async def receive_end(self: Conversation, task: Request, accepted: Callable[[], None]) -> ServerMessage:
        accepted()
        reply = await self.receive(task, math.inf)
        object.__setattr__(reply, "status", "completed")
        return reply

    return mock.patch.object(Conversation, "receive_end", receive_end)


def leave_no_queue() -> AbstractContextManager[object]:
    """Whoever is cancelled in a queue stays in it."""
    return mock.patch.object(Place, "leave", return_value=None)


def keep_a_slot_that_came_too_late() -> AbstractContextManager[object]:
    """A slot that is given in the step of a cancellation is nobody's."""

    def leave(self: Place) -> None:
        if self.waiting:
            self._done.set()
            self._slots.remove(self)

    return mock.patch.object(Place, "leave", leave)


def let_sessions_go_on() -> AbstractContextManager[object]:
    """The server goes on with the tasks of a client that has left."""
    return mock.patch.object(Sessions, "client_left", return_value=None)


def turn_nobody_away() -> AbstractContextManager[object]:
    """Who waits for a device that is removed is not told."""

    def close(self: Slots, error: Callable[[], Exception]) -> None:
        self._closed = error

    return mock.patch.object(Slots, "close", close)


def stop_nothing() -> AbstractContextManager[object]:
    """What runs on a device that is let go of is not stopped."""
    return mock.patch.object(Stops, "stop", return_value=None)


def free_an_abandoned_device() -> AbstractContextManager[object]:
    """Nobody waits for the end of a task whose caller has gone."""

    def leave_behind(self: TaskRunner, task: Task, sent: object) -> None:
        del self, sent
        task.abandoned = True

    return mock.patch.object(TaskRunner, "_leave_behind", leave_behind)


def deliver_twice() -> AbstractContextManager[object]:
    """A reply is also taken for that of the next who waits."""
    finish = PendingReplies._finish

    def finish_two(self: PendingReplies, request: Request, reply: Reply) -> None:
        finish(self, request, reply)
        for other in self._waiting.values():
            if other.kind is request.kind and other.handed_over:
                finish(self, other, reply)
                break

    return mock.patch.object(PendingReplies, "_finish", finish_two)


def write_on_from_the_middle() -> AbstractContextManager[object]:
    """When the writer wakes up, one frame in twenty is gone."""
    append = BufferedStream.append
    count = 0

    def append_most(self: BufferedStream, frame: bytes | bytearray) -> None:
        nonlocal count
        count += 1
        if count % 20:
            append(self, frame)

    return mock.patch.object(BufferedStream, "append", append_most)


def _both(*patches: AbstractContextManager[object]) -> AbstractContextManager[object]:
    stack = ExitStack()
    for patch in patches:
        stack.enter_context(patch)
    return stack


MUTATIONS: Final[tuple[Mutation, ...]] = (
    register_after_send,
    forget_to_remove_on_cancel,
    route_by_kind,
    do_not_end_waiters_on_close,
    give_a_slot_back_twice,
    send_again_after_loss,
    tear_a_frame,
    lose_a_wake_up,
    blame_the_newest,
    wait_for_a_subscriber,
    take_the_acknowledgement_for_the_end,
    leave_no_queue,
    keep_a_slot_that_came_too_late,
    let_sessions_go_on,
    turn_nobody_away,
    stop_nothing,
    free_an_abandoned_device,
    deliver_twice,
    write_on_from_the_middle,
)
