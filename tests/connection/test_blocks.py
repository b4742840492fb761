"""The block of a connection raises only its own exceptions, unchanged, and bugs of background tasks."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol
from wsproto.utilities import LocalProtocolError

from galaxy_trio import Connection, ConnectionLost, ConnectionOptions, open_connection
from galaxy_trio._connection.link import Link
from galaxy_trio._connection.requests import Requests, Router
from galaxy_trio._transport.send_buffer import BufferedStream
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer, open_memory_server, open_scripted_peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._transport.frames import LargeFrame
    from galaxy_trio.messages import ServerMessage


class Bug(Exception):
    """A bug in a background task."""


async def _raise_from_block(error: BaseException) -> BaseException:
    """Return the exception that `open_connection` raises when its block raises this one."""
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        try:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream):
                raise error
        except BaseException as raised:  # noqa: BLE001  # the question is what it is
            assert peer.stream.closed
            return raised


def _answer_registration_soon(peer: ScriptedPeer) -> None:
    # A system task: a nursery of the test would wrap the exceptions that the test checks.
    trio.lowlevel.spawn_system_task(_confirm, peer)


async def _confirm(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.confirm()


async def test_the_blocks_exception_keeps_its_identity_cause_and_context() -> None:
    cause, context = KeyError("cause"), LookupError("context")
    error = ValueError("mine")
    error.__cause__, error.__context__, error.__suppress_context__ = cause, context, False
    raised = await _raise_from_block(error)
    assert raised is error
    assert (raised.__cause__, raised.__context__) == (cause, context)


async def test_the_blocks_exception_gets_no_added_context() -> None:
    raised = await _raise_from_block(ValueError("mine"))
    assert (raised.__cause__, raised.__context__) == (None, None)


async def test_the_blocks_exception_group_is_raised_as_the_same_object() -> None:
    group = ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])])
    assert await _raise_from_block(group) is group


async def test_a_keyboard_interrupt_in_the_block_is_raised_bare() -> None:
    interrupt = KeyboardInterrupt()
    assert await _raise_from_block(interrupt) is interrupt


async def test_a_nursery_in_the_block_raises_only_its_own_group() -> None:
    error = ValueError("mine")

    async def fail() -> None:
        raise error

    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        with pytest.raises(ExceptionGroup) as caught:
            async with (
                open_connection(PEER_URL, "device_001", stream=peer.stream),
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(fail)
                nursery.start_soon(trio.sleep_forever)
        assert caught.value.exceptions == (error,)


async def test_cancelling_the_block_closes_immediately_and_reaches_the_outer_scope() -> None:
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        with trio.CancelScope() as scope:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream) as connection:
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert connection.closed
        assert peer.stream.closed
        # No close frame: the socket was closed.
        assert (await peer.wait_ended()).code == 1006


async def test_the_own_error_of_a_cancelled_block_is_raised() -> None:
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        with trio.CancelScope() as scope, pytest.raises(ValueError, match="mine"):
            async with open_connection(PEER_URL, "device_001", stream=peer.stream):
                scope.cancel()
                try:
                    await trio.lowlevel.checkpoint()
                finally:
                    raise ValueError("mine")


async def test_a_cancellation_while_closing_reaches_the_outer_scope(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        with trio.move_on_after(1) as scope:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream):
                # The peer reads nothing any more, so closing waits for its reply.
                peer.go_silent()
        assert scope.cancelled_caught
        assert trio.current_time() < 2
        assert peer.stream.closed


async def test_the_blocks_exception_is_raised_despite_a_cancellation_while_closing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    error = ValueError("mine")
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        with trio.move_on_after(1), pytest.raises(ValueError, match="mine") as caught:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream):
                peer.go_silent()
                raise error
        assert caught.value is error
        assert trio.current_time() < 2
        assert peer.stream.closed


async def test_closing_is_bounded_when_the_peer_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer() as peer:
        peer.go_silent()
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(3)


async def test_closing_is_bounded_when_the_peer_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer() as peer:
        peer.stream.stall()
        with trio.move_on_after(1):
            await peer.connection.run_task("x" * 100_000)
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(3)


async def test_closing_flushes_the_send_buffer_and_sends_a_close_frame() -> None:
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        async with (
            open_connection(PEER_URL, "device_001", stream=peer.stream) as connection,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(connection.run_task, "x" * 3_000_000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert len((await peer.receive()).request or "") == 3_000_000
        assert (await peer.wait_ended()).code == 1000


async def test_losing_the_connection_does_not_end_the_block_or_raise_from_it() -> None:
    async with open_scripted_peer() as peer:
        peer.reset()
        lost = await peer.connection.wait_closed()
        assert isinstance(lost, ConnectionLost)
        assert peer.connection.closed
        # The block continues, but its requests raise.
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await peer.connection.device_info()


async def test_the_blocks_exception_after_a_loss_is_raised_alone() -> None:
    error = ValueError("mine")
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        with pytest.raises(ValueError, match="mine") as caught:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream) as connection:
                peer.reset()
                await connection.wait_closed()
                raise error
        assert caught.value is error


async def test_connection_lost_leaves_the_block_unwrapped() -> None:
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        with pytest.raises(ConnectionLost) as caught:
            async with open_connection(PEER_URL, "device_001", stream=peer.stream) as connection:
                peer.reset()
                await connection.device_info()
        assert caught.value.reason


def _crash_receiver(monkeypatch: pytest.MonkeyPatch, bug: BaseException) -> None:
    original = Router.received

    def received(self: Router, message: ServerMessage) -> None:
        if message.error == "trigger":
            raise bug
        original(self, message)

    monkeypatch.setattr(Router, "received", received)


def _crash_heartbeat(monkeypatch: pytest.MonkeyPatch, bug: BaseException) -> None:
    async def beat(self: Requests) -> None:
        raise bug

    monkeypatch.setattr(Requests, "beat", beat)


def _crash_writer(monkeypatch: pytest.MonkeyPatch, bug: BaseException) -> None:
    original = BufferedStream._next_batch

    def next_batch(self: BufferedStream) -> bytes | bytearray | LargeFrame:
        batch = original(self)
        if len(batch) > 2000:
            raise bug
        return batch

    monkeypatch.setattr(BufferedStream, "_next_batch", next_batch)


def _crash_reader(monkeypatch: pytest.MonkeyPatch, bug: BaseException) -> None:
    original = BufferedStream.receive_some

    async def receive_some(self: BufferedStream, max_bytes: int | None = None) -> bytes | bytearray:
        data = await original(self, max_bytes)
        if b"trigger" in data:
            raise bug
        return data

    monkeypatch.setattr(BufferedStream, "receive_some", receive_some)


def _crash_liveness(monkeypatch: pytest.MonkeyPatch, bug: BaseException) -> None:
    async def watch(self: Link[ServerMessage], timeout: float) -> None:
        await trio.sleep(10)
        raise bug

    monkeypatch.setattr(Link, "_watch_liveness", watch)


_TRIGGER_FOR_THE_LIBRARY = bytes(FrameProtocol(client=False, extensions=[]).send_data(b"trigger"))
"""A binary frame, which trio-websocket reads."""
_CRASHES = [_crash_receiver, _crash_heartbeat, _crash_writer, _crash_reader, _crash_liveness]


async def _until_it_crashes(peer: ScriptedPeer, connection: Connection) -> None:
    """Trigger each of the planted bugs, and wait."""
    await peer.send_raw(_TRIGGER_FOR_THE_LIBRARY)
    peer.send_json({"type": "task", "status": "ok", "error": "trigger"})
    with trio.move_on_after(1), suppress(ConnectionLost):
        await connection.run_task("x" * 3000)
    await trio.sleep_forever()


@pytest.mark.parametrize("plant", _CRASHES)
async def test_a_background_bug_ends_the_block_and_is_raised(
    plant: Callable[[pytest.MonkeyPatch, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    bug = Bug("in a task")
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        plant(monkeypatch, bug)
        with trio.fail_after(100), pytest.raises(Bug) as caught:
            async with open_connection(
                PEER_URL, "device_001", stream=peer.stream, options=ConnectionOptions(heartbeat_interval=20)
            ) as connection:
                await _until_it_crashes(peer, connection)
        assert caught.value is bug
        assert connection.closed
        assert peer.stream.closed
        lost = await connection.wait_closed()
        assert lost is not None
        assert lost.__cause__ is bug
        assert connection.statistics().pending == 0


@pytest.mark.parametrize("plant", _CRASHES)
async def test_the_blocks_exception_and_a_background_bug_are_raised_as_one_group(
    plant: Callable[[pytest.MonkeyPatch, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    bug, error = Bug("in a task"), ValueError("mine")
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        plant(monkeypatch, bug)
        with trio.fail_after(100), pytest.raises(ExceptionGroup) as caught:
            async with open_connection(
                PEER_URL, "device_001", stream=peer.stream, options=ConnectionOptions(heartbeat_interval=20)
            ) as connection:
                try:
                    await _until_it_crashes(peer, connection)
                finally:
                    raise error
        assert caught.value.exceptions == (error, bug)


async def test_a_crash_of_the_receiver_notifies_all_waiters(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = Bug("in the receiver")
    _crash_receiver(monkeypatch, bug)
    losses: list[BaseException] = []

    async def ask(connection: Connection) -> None:
        try:
            await connection.device_info()
        except ConnectionLost as lost:
            losses.append(lost)

    async with open_bare_peer() as peer, trio.open_nursery() as outside:
        _answer_registration_soon(peer)
        with pytest.raises(Bug):
            async with open_connection(PEER_URL, "device_001", stream=peer.stream) as connection:
                # The bug does not cancel tasks of an outer nursery, so they must be notified.
                for _ in range(3):
                    outside.start_soon(ask, connection)
                await trio.testing.wait_all_tasks_blocked()
                await _until_it_crashes(peer, connection)
    assert [lost.__cause__ for lost in losses] == [bug, bug, bug]


async def test_a_protocol_error_of_the_library_is_a_lost_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    _crash_reader(monkeypatch, LocalProtocolError("a peer's doing"))
    async with open_scripted_peer() as peer:
        await peer.send_raw(_TRIGGER_FOR_THE_LIBRARY)
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert lost.code == 1002
        assert lost.reason == "the peer broke the WebSocket protocol: a peer's doing"


@pytest.mark.parametrize("plant", [_crash_receiver, _crash_heartbeat, _crash_writer, _crash_liveness])
async def test_a_keyboard_interrupt_in_a_background_task_is_raised_bare(
    plant: Callable[[pytest.MonkeyPatch, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    interrupt = KeyboardInterrupt()
    raised: BaseException | None = None
    async with open_bare_peer() as peer:
        _answer_registration_soon(peer)
        plant(monkeypatch, interrupt)
        try:
            async with open_connection(
                PEER_URL, "device_001", stream=peer.stream, options=ConnectionOptions(heartbeat_interval=20)
            ) as connection:
                try:
                    await _until_it_crashes(peer, connection)
                finally:
                    raise ValueError("mine, which gives way")
        except BaseException as error:  # noqa: BLE001  # the question is what it is
            raised = error
    assert raised is interrupt


async def test_no_task_outlives_the_block() -> None:
    async with open_memory_server() as server:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            with pytest.raises(Exception, match="is not connected"):
                async with open_connection(server.url, "unknown", stream=server.connect()):
                    raise AssertionError("not reached")
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
