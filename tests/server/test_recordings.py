"""Every recording of the original server, replayed from its clients' side: this server answers as that one did, but for what is better."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import HandshakeRejected, TaskFailed
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.testing import MemoryServer, open_memory_server
from tests.connection.support.recordings import DATA, NAMES, text_frames
from tests.server.support.raw_client import Members, RawClient, open_raw_client

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


@attrs.frozen
class _Better:
    """What comes in place of what was recorded, and why."""

    why: str
    error: str | None = None
    """How an error begins that comes in its place; None for nothing."""
    close: int | None = None
    """The code of a close after it."""


_LIBRARY = "the recorded words are those of a library"
BETTER: dict[str, dict[int, _Better]] = {
    "bad_messages": {
        1: _Better(_LIBRARY, "invalid message to the server: not JSON"),
        3: _Better(_LIBRARY, "invalid message to the server: expected an object"),
        5: _Better(_LIBRARY, "invalid message to the server: type: "),
    },
    "registration_errors": {
        7: _Better("who begins otherwise is told so", "the first message must be a registration", 1008),
    },
    "same_session_twice": {
        7: _Better("the first request was run again, and not the new one", "session_id 'demo@s' is in use"),
        9: _Better("a task ends once"),
    },
    "other_messages": {
        15: _Better("the connection was silent for good", "invalid message to the server: a binary frame of 3 bytes"),
    },
}
"""By the number of the recording's line; the one that says what it is about does not count."""

_OF_NO_MATTER = ("agent_name",)
"""Members that name the program."""
_BEGIN_WITHOUT_CLIENTS = ("registration_ok", "same_session_twice", "other_messages")
_LOST = ("device_lost_mid_task", "task_to_lost_device")
_ON_THE_SAME_CONNECTION = {("other_messages", 4)}
"""Registrations that come on a connection that is registered."""


async def _recorded_session(task: ServerTask) -> object:
    """The sessions that were scripted for the recordings."""
    kind, _, argument = task.request.partition(":")
    match kind:
        case "echo":
            return {"echo": argument}
        case "fail":
            raise RuntimeError(argument)
        case "err":
            raise TaskFailed("", result={"failure": "session ended with an error"})
        case "cmd":
            commands = [Command(f"tool_{number}", ToolType.ACTION, {"i": number}) for number in range(int(argument))]
            names = ("status", "error", "result", "namespace", "call_id")
            return {"results": [{name: getattr(one, name) for name in names} for one in await task.execute(commands)]}
        case _:
            await trio.sleep(float(argument))
            return {"slept": argument}


class _Player:
    """Says what a recording's clients said, and compares what comes with what came then, but for times and made-up ids."""

    def __init__(self, name: str, server: MemoryServer, stack: AsyncExitStack) -> None:
        self._name = name
        self._server = server
        self._stack = stack
        self.clients: dict[str, RawClient] = {}
        """Who speaks for each side now."""
        self._named: dict[object, RawClient] = {}
        self._owners: dict[object, RawClient] = {}
        self._ours: dict[str, str] = {}
        """The ids of now, by those of then."""
        self._wrong_tokens = iter((None, "wrong"))
        self.better = 0

    async def play(self, number: int, entry: object) -> None:
        better = BETTER.get(self._name, {}).get(number)
        match entry:
            case {"to": str(side)} if better is not None:
                await self.hear_better(side, better)
            case {"from": str(side), "to": "server", "text": str(text)}:
                await self.say(number, side, text)
            case {"from": "server", "to": str(side), "text": str(text)}:
                await self.hear(side, text)
            case {"from": "server", "to": str(side), "close": {"code": int(code)}}:
                await self.is_closed(side, code)
            case {"from": "server", "to": str(side), "silence_s": int(seconds)}:
                # Whoever was refused here has been closed, where the recorded server left the socket open.
                if side in self.clients:
                    await self.clients[side].silence(seconds)
            case {"event": str(event)}:
                await self.happens(event)
            case {"handshake_status": int(status)}:
                await self.is_rejected(status)
            case _:
                raise AssertionError(f"nobody knows how to replay {entry}")

    async def open(self, side: str) -> RawClient:
        client = await self._stack.enter_async_context(open_raw_client(self._server.connect()))
        self.clients[side] = client
        return client

    async def say(self, number: int, side: str, text: str) -> None:
        registers = '"type": "register"' in text and (self._name, number) not in _ON_THE_SAME_CONNECTION
        name = json.loads(text).get("client_id") if '"client_id"' in text else None
        if registers or side not in self.clients:
            self._named[name] = await self.open(side)
        client = self.clients[side] = self._named.get(name, self.clients[side])
        for theirs, ours in self._ours.items():
            text = text.replace(theirs, ours)
        client.send_text(text)
        if '"type": "task"' in text:
            self._owners.setdefault(json.loads(text)["session_id"], client)
        if '"request_id": "' in text:
            # A request's own id comes back in its reply.
            request_id = json.loads(text)["request_id"]
            self._ours[request_id] = request_id

    async def hear(self, side: str, text: str) -> None:
        expected: Members = {name: value for name, value in json.loads(text).items() if value is not None}
        expected.pop("timestamp")
        is_for_owner = side == "constellation" and expected["type"] == "task_end"
        client = self._owners[expected["session_id"]] if is_for_owner else self.clients[side]
        came = await client.receive()
        self._learn(expected, came)
        for one, other in zip(_actions(expected), _actions(came), strict=True):
            self._learn(one, other)
        expected = json.loads(self._in_ids_of_now(expected))
        for name in _OF_NO_MATTER:
            assert (expected.pop(name, None) is None) == (came.pop(name, None) is None)
        assert came == expected

    def _in_ids_of_now(self, members: Members) -> str:
        text = json.dumps(members)
        for theirs, ours in self._ours.items():
            text = text.replace(theirs, ours)
        return text

    def _learn(self, recorded: Members, came: Members) -> None:
        """What had the same id then has the same id now, and what had another has another."""
        for name in ("response_id", "call_id"):
            if name in recorded and recorded[name] not in self._ours:
                assert came[name] not in self._ours.values()
                self._ours[str(recorded[name])] = str(came[name])

    async def hear_better(self, side: str, better: _Better) -> None:
        self.better += 1
        if better.error is not None:
            error = await self.clients[side].receive()
            assert (error["type"], error["status"], error.get("session_id")) == ("error", "error", None)
            assert str(error["error"]).startswith(better.error)
        if better.close is not None:
            await self.is_closed(side, better.close)

    async def is_closed(self, side: str, code: int) -> None:
        client = self.clients.pop(side)
        assert await client.close_code() == code
        self._named = {name: other for name, other in self._named.items() if other is not client}

    async def is_rejected(self, status: int) -> None:
        with pytest.raises(HandshakeRejected) as caught:
            async with open_raw_client(self._server.connect(), token=next(self._wrong_tokens)):
                raise AssertionError("was let in")
        assert caught.value.status_code == status

    async def happens(self, event: str) -> None:
        match event:
            case "the device closes its connection":
                await self.clients["device"].close()
            case "the device sends a binary frame":
                await self.clients["device"].send_binary(b"\x00\x01\x02")
            case _:
                raise AssertionError(f"nobody knows how to let it happen that {event}")


def _actions(members: Members) -> list[Members]:
    return cast("list[Members]", members.get("actions", []))


@pytest.mark.parametrize("name", NAMES)
async def test_replies_match_the_recordings(name: str, autojump_clock: trio.testing.MockClock) -> None:
    about, *entries = map(json.loads, (DATA / f"{name}.jsonl").read_text().splitlines())
    assert "about" in about
    token = "the right one" if name == "bad_token" else None
    async with open_memory_server(session=_recorded_session, token=token) as server, AsyncExitStack() as stack:
        player = _Player(name, server, stack)
        if name not in (*_BEGIN_WITHOUT_CLIENTS, "bad_token"):
            for frame in text_frames("registration_ok")[::2]:
                await player.say(-1, frame.sender, frame.text)
                assert (await player.clients[frame.sender].receive())["type"] == "heartbeat"
        if name == _LOST[1]:
            await player.clients["device"].close()
        for number, entry in enumerate(entries):
            await player.play(number, entry)
        assert player.better == len(BETTER.get(name, {}))
        for side, client in player.clients.items():
            # In these the device has left, or what it was told was not recorded.
            if side == "constellation" or name not in (*_LOST, "same_session_twice"):
                await client.silence(5)


def test_listed_deviations_name_existing_recordings() -> None:
    assert len(NAMES) == 18
    assert set(BETTER) < set(NAMES)
