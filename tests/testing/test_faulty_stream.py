"""The faulty stream: resets, silence, stalls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio.testing import Conditions, FaultyStream, Network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _faulty_pair() -> tuple[FaultyStream, trio.abc.Stream]:
    near, far = trio.testing.memory_stream_pair()
    return FaultyStream(near), far


async def test_faulty_stream_passes_bytes_and_the_end_by_default() -> None:
    faulty, far = _faulty_pair()
    await faulty.send_all(b"there")
    assert await far.receive_some() == b"there"
    await far.send_all(b"and back")
    assert await faulty.receive_some(3) == b"and"
    assert await faulty.receive_some() == b" back"
    await far.aclose()
    assert await faulty.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"to no reader")
    await faulty.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.send_all(b"x")
    # It stays closed.
    faulty.reset()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.receive_some()


async def test_cancelling_a_call_on_a_faulty_stream_loses_nothing() -> None:
    faulty, far = _faulty_pair()
    faulty.stall()
    for call in (faulty.receive_some, faulty.wait_send_all_might_not_block):
        with trio.move_on_after(0) as scope:
            await call()
        assert scope.cancelled_caught
    with trio.move_on_after(0) as scope:
        await faulty.send_all(b"never sent")
    assert scope.cancelled_caught
    faulty.resume()
    await faulty.send_all(b"there")
    await far.send_all(b"and back")
    assert (await far.receive_some(), await faulty.receive_some()) == (b"there", b"and back")


@pytest.fixture(params=["waiting", "later"])
def waiting(request: pytest.FixtureRequest) -> bool:
    """Whether the fault happens during the call or before it."""
    return bool(request.param == "waiting")


async def _meets(waiting: bool, call: Callable[[], Awaitable[object]], fault: Callable[[], object]) -> object:
    """The outcome of a call with a fault, or None if it keeps waiting."""
    met: list[object] = []

    async def run() -> None:
        try:
            met.append(await call())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            met.append(error)

    async with trio.open_nursery() as nursery:
        if not waiting:
            fault()
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        if waiting:
            assert met == []
            fault()
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return met[0] if met else None


async def test_receiving_from_a_reset_stream_raises(waiting: bool) -> None:
    faulty, _ = _faulty_pair()
    met = await _meets(waiting, faulty.receive_some, faulty.reset)
    assert isinstance(met, trio.BrokenResourceError)
    assert str(met) == "connection reset by a test"


async def test_sending_to_a_reset_stream_raises_also_when_it_is_stalled(waiting: bool) -> None:
    faulty, _ = _faulty_pair()
    faulty.stall()

    async def send() -> None:
        await faulty.send_all(b"x")

    def go_on_and_reset() -> None:
        faulty.reset()
        if not waiting:
            faulty.resume()

    assert isinstance(await _meets(waiting, send, go_on_and_reset), trio.BrokenResourceError)


async def test_bytes_that_arrived_before_a_reset_are_lost() -> None:
    faulty, far = _faulty_pair()
    await far.send_all(b"arrived")
    faulty.reset()
    with pytest.raises(trio.BrokenResourceError):
        await faulty.receive_some()


async def test_silent_stream_receives_nothing_and_no_end(waiting: bool) -> None:
    faulty, far = _faulty_pair()
    if not waiting:
        # Bytes that have arrived are lost too.
        await far.send_all(b"unheard")
    assert await _meets(waiting, faulty.receive_some, faulty.go_silent) is None
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            raise AssertionError(f"there came {await faulty.receive_some()!r}")

        nursery.start_soon(receive)
        for _ in range(3):
            await far.send_all(b"unheard")
            await trio.testing.wait_all_tasks_blocked()
        await far.aclose()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_silent_stream_sends_nothing_and_no_end() -> None:
    faulty, far = _faulty_pair()
    faulty.go_silent()
    with trio.testing.assert_checkpoints():
        await faulty.send_all(b"unheard")
    with trio.testing.assert_checkpoints():
        await faulty.wait_send_all_might_not_block()
    with trio.testing.assert_checkpoints():
        await faulty.aclose()
    assert faulty.closed

    async def receive() -> None:
        raise AssertionError(f"there came {await far.receive_some()!r}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_silent_stream_can_be_reset_and_closed() -> None:
    faulty, _ = _faulty_pair()
    faulty.go_silent()
    assert isinstance(await _meets(True, faulty.receive_some, faulty.reset), trio.BrokenResourceError)
    faulty, _ = _faulty_pair()
    faulty.go_silent()
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with trio.fail_after(60), pytest.raises(trio.ClosedResourceError, match="this end was closed"):
                await faulty.receive_some()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await faulty.aclose()


async def test_sending_to_a_stalled_stream_waits_until_it_resumes() -> None:
    faulty, far = _faulty_pair()
    faulty.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faulty.send_all, b"later")
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        # The other direction still works.
        await far.send_all(b"immediately")
        assert await faulty.receive_some() == b"immediately"
        faulty.resume()
        with trio.fail_after(60):
            assert await far.receive_some() == b"later"
    faulty.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faulty.wait_send_all_might_not_block)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        faulty.resume()
    await faulty.send_all(b"again")
    await faulty.wait_send_all_might_not_block()
    assert await far.receive_some() == b"again"


async def test_closing_a_stalled_stream_wakes_waiting_sends() -> None:
    faulty, far = _faulty_pair()
    faulty.stall()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with trio.fail_after(60), pytest.raises(trio.ClosedResourceError):
                await faulty.send_all(b"never")

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert not faulty.closed
        await faulty.aclose()
    assert await far.receive_some() == b""


async def test_resume_after_stalling_twice_wakes_all_sends() -> None:
    near, far = trio.testing.memory_stream_pair()
    faulty = FaultyStream(near)
    async with trio.open_nursery() as nursery:
        faulty.stall()
        nursery.start_soon(faulty.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked()
        faulty.stall()
        faulty.resume()
        with trio.fail_after(60):
            assert await far.receive_some() == b"x"


async def test_reset_wakes_a_send_that_waits_for_the_other_end() -> None:
    link = Network(conditions=Conditions(capacity=10)).connect()
    faulty = FaultyStream(link.client)

    async def send() -> None:
        await faulty.send_all(b"x" * 11)

    assert isinstance(await _meets(True, send, faulty.reset), trio.BrokenResourceError)


async def test_faulty_stream_passes_trios_stream_checks() -> None:
    async def make(capacity: int = 2**16) -> tuple[FaultyStream, FaultyStream]:
        await trio.lowlevel.checkpoint()
        link = Network(conditions=Conditions(capacity=capacity)).connect()
        return FaultyStream(link.client), FaultyStream(link.server)

    async def make_clogged() -> tuple[FaultyStream, FaultyStream]:
        ours, theirs = await make(10)
        await ours.send_all(b"x" * 10)
        await theirs.send_all(b"x" * 10)
        return ours, theirs

    await trio.testing.check_two_way_stream(make, make_clogged)
