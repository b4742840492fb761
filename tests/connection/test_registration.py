"""Opening fails when the server does not confirm the registration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed, ConnectionLost, ConnectTimeout, InvalidMessage, RegistrationRejected, TaskStatus
from galaxy_trio.messages import ServerMessageType
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer
from tests.connection.support.opening import fail_to_open

Play: TypeAlias = Callable[[ScriptedPeer], Awaitable[None]]


async def _fail_to_register(
    play: Play, *, register_timeout: float = 600.0, within: float = 5.0
) -> tuple[ConnectFailed, int]:
    """Register with a peer that plays this on the registration. Returns the error, and the close code that the peer received."""
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def answer() -> None:
            await peer.receive()
            await play(peer)

        nursery.start_soon(answer)
        error = await fail_to_open(PEER_URL, stream=peer.stream, register_timeout=register_timeout, within=within)
        assert peer.stream.closed
        code = (await peer.wait_ended()).code
    return error, code


async def test_a_refused_registration_raises_the_servers_words_and_closes_without_a_close_frame(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def refuse(peer: ScriptedPeer) -> None:
        peer.refuse("no room")

    error, code = await _fail_to_register(refuse)
    assert isinstance(error, RegistrationRejected)
    assert error.words == "no room"
    assert str(error) == "the server refused the registration for device 'device_001': no room"
    assert code == 1006


@pytest.mark.parametrize("status", [TaskStatus.ERROR, TaskStatus.FAILED, TaskStatus.CONTINUE])
@pytest.mark.parametrize("words", ["no room", None])
async def test_a_confirmation_with_a_status_other_than_ok_is_a_refusal(
    status: TaskStatus, words: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    async def confirm(peer: ScriptedPeer) -> None:
        peer.send(ServerMessageType.HEARTBEAT, status=status, error=words)

    error, _ = await _fail_to_register(confirm)
    assert isinstance(error, RegistrationRejected)
    assert error.words == (words or f"status {status}")


async def test_an_unanswered_registration_is_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async def say_nothing(peer: ScriptedPeer) -> None:
        """Do not confirm."""

    error, code = await _fail_to_register(say_nothing, register_timeout=7, within=8)
    assert trio.current_time() == pytest.approx(7)
    assert isinstance(error, ConnectTimeout)
    assert isinstance(error, trio.TooSlowError)
    assert str(error) == "the server for device 'device_001' did not confirm the registration within 7 s"
    assert code == 1006


async def test_a_message_that_answers_no_request_does_not_confirm_a_registration(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def chatter(peer: ScriptedPeer) -> None:
        peer.send(ServerMessageType.TASK_END, session_id="another")
        peer.send(ServerMessageType.HEARTBEAT, session_id="another")
        peer.send(ServerMessageType.DEVICE_INFO_RESPONSE)

    error, _ = await _fail_to_register(chatter, register_timeout=7, within=8)
    assert isinstance(error, ConnectTimeout)


@pytest.mark.parametrize("text", ["{", '{"type": "heartbeat", "status": "perhaps"}', "[]"])
async def test_a_broken_confirmation_fails_the_registration_immediately(
    text: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def confirm(peer: ScriptedPeer) -> None:
        peer.send_text(text)

    error, _ = await _fail_to_register(confirm)
    assert type(error) is ConnectFailed
    assert isinstance(error.__cause__, InvalidMessage)


async def _reset_peer(peer: ScriptedPeer) -> None:
    peer.reset()


async def _end_peer(peer: ScriptedPeer) -> None:
    await peer.abort()


async def _break_peer(peer: ScriptedPeer) -> None:
    await peer.send_raw(b"\xff\xff\xff\xff")


_ENDINGS: list[tuple[Play, int]] = [
    (lambda peer: peer.close(1000, "because"), 1000),
    (lambda peer: peer.close(1011, "because"), 1011),
    (_reset_peer, 1006),
    (_end_peer, 1006),
    (_break_peer, 1002),
]


@pytest.mark.parametrize(
    ("play", "code"),
    _ENDINGS,
    ids=["1000", "1011", "reset", "end of stream", "no frame"],
)
async def test_a_connection_that_ends_before_the_confirmation_fails_immediately(
    play: Play, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    error, _ = await _fail_to_register(play)
    assert type(error) is ConnectFailed
    assert isinstance(error.__cause__, ConnectionLost)
    assert error.__cause__.code == code
    assert str(error).startswith("could not register with the server for device 'device_001': ")
    assert error.__cause__.reason in str(error)
