"""Every recording, replayed from the clients' side: this server replies like the recorded one, except for listed deviations."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio

from galaxy_trio import HandshakeRejected
from galaxy_trio.testing import MemoryServer, open_memory_server
from tests.connection.support.recordings import DATA, NAMES, text_frames
from tests.server.support.raw_client import Members, RawClient, answering_pings, open_raw_client
from tests.server.support.recorded_session import recorded_session

if TYPE_CHECKING:
    import trio.testing


@attrs.frozen
class _Deviation:
    """A deviation from a recorded reply, and its reason."""

    why: str
    error: str | None = None
    """The beginning of the error that is sent instead; None for no reply."""
    close: int | None = None
    """The close code that follows."""


_LIBRARY = "the recorded text comes from a library"
_SIMILAR = "the recorded server names no other devices"
_NOT_CONNECTED = "Target device 'device_404' is not connected; similar names that are: 'device_001'"
DEVIATIONS: dict[str, dict[int, _Deviation]] = {
    "bad_messages": {
        1: _Deviation(_LIBRARY, "invalid message to the server: not JSON"),
        3: _Deviation(_LIBRARY, "invalid message to the server: expected an object"),
        5: _Deviation(_LIBRARY, "invalid message to the server: type: "),
    },
    "registration_errors": {
        4: _Deviation(_SIMILAR, _NOT_CONNECTED),
        7: _Deviation(
            "the recorded server does not reply to another first message",
            "the first message must be a registration",
            1008,
        ),
    },
    "task_errors": {3: _Deviation(_SIMILAR, _NOT_CONNECTED)},
    "same_session_twice": {
        7: _Deviation("the recorded server ran the first request again", "session_id 'demo@s' is in use"),
        9: _Deviation("a task ends only once"),
    },
    "other_messages": {
        15: _Deviation(
            "the recorded server never replied again", "invalid message to the server: a binary frame of 3 bytes"
        ),
    },
}
"""Deviations by line number of the recording, not counting its title line."""

_IGNORED = ("agent_name",)
"""Members that contain the program's name."""
_START_WITHOUT_CLIENTS = ("registration_ok", "same_session_twice", "other_messages")
_LOST = ("device_lost_mid_task", "task_to_lost_device")
_ON_THE_SAME_CONNECTION = {("other_messages", 4)}
"""Registrations on a connection that is registered already."""


class _Player:
    """Replays a recording's clients and compares the replies, except for times and generated ids."""

    def __init__(self, name: str, server: MemoryServer, stack: AsyncExitStack) -> None:
        self._name = name
        self._server = server
        self._stack = stack
        self.clients: dict[str, RawClient] = {}
        """The client that replays each side."""
        self._named: dict[object, RawClient] = {}
        self._owners: dict[object, RawClient] = {}
        self._ours: dict[str, str] = {}
        """This run's ids by recorded id."""
        self._wrong_tokens = iter((None, "wrong"))
        self.deviations = 0

    async def play(self, number: int, entry: object) -> None:
        deviation = DEVIATIONS.get(self._name, {}).get(number)
        match entry:
            case {"to": str(side)} if deviation is not None:
                await self.receive_deviation(side, deviation)
            case {"from": str(side), "to": "server", "text": str(text)}:
                await self.send(number, side, text)
            case {"from": "server", "to": str(side), "text": str(text)}:
                await self.receive(side, text)
            case {"from": "server", "to": str(side), "close": {"code": int(code)}}:
                await self.is_closed(side, code)
            case {"from": "server", "to": str(side), "silence_s": int(seconds)}:
                # A refused client is closed here; the recorded server left the socket open.
                if side in self.clients:
                    await self.clients[side].silence(seconds)
            case {"event": str(event)}:
                await self.handle_event(event)
            case {"handshake_status": int(status)}:
                await self.is_rejected(status)
            case _:
                raise AssertionError(f"unknown entry: {entry}")

    async def open(self, side: str) -> RawClient:
        client = await self._stack.enter_async_context(open_raw_client(self._server.connect()))
        self.clients[side] = client
        return client

    async def send(self, number: int, side: str, text: str) -> None:
        registers = '"type": "register"' in text and (self._name, number) not in _ON_THE_SAME_CONNECTION
        name = json.loads(text).get("client_id") if '"client_id"' in text else None
        if registers and name in self._named and self._name == "registration_errors":
            # The recorded server did not ask the holder of a name whether it is there.
            await self._stack.enter_async_context(answering_pings(self._named[name]))
        if registers or side not in self.clients:
            self._named[name] = await self.open(side)
        client = self.clients[side] = self._named.get(name, self.clients[side])
        for theirs, ours in self._ours.items():
            text = text.replace(theirs, ours)
        client.send_text(text)
        if '"type": "task"' in text:
            self._owners.setdefault(json.loads(text)["session_id"], client)
        if '"request_id": "' in text:
            # A reply repeats the request's own id.
            request_id = json.loads(text)["request_id"]
            self._ours[request_id] = request_id

    async def receive(self, side: str, text: str) -> None:
        expected: Members = {name: value for name, value in json.loads(text).items() if value is not None}
        expected.pop("timestamp")
        is_for_owner = side == "constellation" and expected["type"] == "task_end"
        client = self._owners[expected["session_id"]] if is_for_owner else self.clients[side]
        received = await client.receive()
        self._learn(expected, received)
        for one, other in zip(_actions(expected), _actions(received), strict=True):
            self._learn(one, other)
        expected = json.loads(self._in_ids_of_now(expected))
        for name in _IGNORED:
            assert (expected.pop(name, None) is None) == (received.pop(name, None) is None)
        assert received == expected

    def _in_ids_of_now(self, members: Members) -> str:
        text = json.dumps(members)
        for theirs, ours in self._ours.items():
            text = text.replace(theirs, ours)
        return text

    def _learn(self, recorded: Members, received: Members) -> None:
        """Check that ids are equal now exactly where the recorded ones were."""
        for name in ("response_id", "call_id"):
            if name in recorded and recorded[name] not in self._ours:
                assert received[name] not in self._ours.values()
                self._ours[str(recorded[name])] = str(received[name])

    async def receive_deviation(self, side: str, deviation: _Deviation) -> None:
        self.deviations += 1
        if deviation.error is not None:
            error = await self.clients[side].receive()
            assert (error["type"], error["status"], error.get("session_id")) == ("error", "error", None)
            assert str(error["error"]).startswith(deviation.error)
        if deviation.close is not None:
            await self.is_closed(side, deviation.close)

    async def is_closed(self, side: str, code: int) -> None:
        client = self.clients.pop(side)
        assert await client.close_code() == code
        self._named = {name: other for name, other in self._named.items() if other is not client}

    async def is_rejected(self, status: int) -> None:
        with pytest.raises(HandshakeRejected) as caught:
            async with open_raw_client(self._server.connect(), token=next(self._wrong_tokens)):
                raise AssertionError("was let in")
        assert caught.value.status_code == status

    async def handle_event(self, event: str) -> None:
        match event:
            case "the device closes its connection":
                await self.clients["device"].close()
            case "the device sends a binary frame":
                await self.clients["device"].send_binary(b"\x00\x01\x02")
            case _:
                raise AssertionError(f"unknown event: {event}")


def _actions(members: Members) -> list[Members]:
    return cast("list[Members]", members.get("actions", []))


@pytest.mark.parametrize("name", NAMES)
async def test_replies_match_the_recordings(name: str, autojump_clock: trio.testing.MockClock) -> None:
    about, *entries = map(json.loads, (DATA / f"{name}.jsonl").read_text().splitlines())
    assert "about" in about
    token = "the right one" if name == "bad_token" else None
    async with open_memory_server(session=recorded_session, token=token) as server, AsyncExitStack() as stack:
        player = _Player(name, server, stack)
        if name not in (*_START_WITHOUT_CLIENTS, "bad_token"):
            for frame in text_frames("registration_ok")[::2]:
                await player.send(-1, frame.sender, frame.text)
                assert (await player.clients[frame.sender].receive())["type"] == "heartbeat"
        if name == _LOST[1]:
            await player.clients["device"].close()
        for number, entry in enumerate(entries):
            await player.play(number, entry)
        assert player.deviations == len(DEVIATIONS.get(name, {}))
        for side, client in player.clients.items():
            # In these the device has disconnected, or its messages were not recorded.
            if side == "constellation" or name not in (*_LOST, "same_session_twice"):
                await client.silence(5)


def test_listed_deviations_name_existing_recordings() -> None:
    assert len(NAMES) == 18
    assert set(DEVIATIONS) < set(NAMES)
