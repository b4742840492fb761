"""The server survives any input: damaged recordings, as single messages and as whole conversations."""

from __future__ import annotations

import itertools
import json
import math
from typing import Final

import attrs
import trio
import trio.testing
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from galaxy_trio import TaskFailed
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import ServerLimits, ServerStatistics, ServerTask
from galaxy_trio.testing import MemoryServer, open_memory_server
from tests.server.support.clients import register_constellation, register_device, submit
from tests.server.support.raw_client import Members, RawClient, open_raw_client
from tests.support.fuzzing import FRAMES, TO_SERVER, damaged, errors_logged, fuzz, simulate, transcripts

BYSTANDER: Final = "bystander"
"""A device that takes no part in the fuzzing."""
ITS_CONSTELLATION: Final = "demo@bystander"
SMALL: Final = ServerLimits(max_sessions=4, max_unanswered_commands=3, max_message_size=2**20)


@attrs.frozen
class Say:
    """One client sends text, bytes in a text frame, or a binary frame."""

    who: str
    text: str | bytes
    binary: bool = False
    hurry: bool = False
    """The next step follows before the server has reacted."""


@attrs.frozen
class Leave:
    """One client ends without a close frame and another one replaces it."""

    who: str


@attrs.frozen
class Pause:
    """No client sends for so many seconds."""

    seconds: float


Step = Say | Leave | Pause
WHO: Final = ("device", "constellation", "third")
_RESPONSE, _SESSION = "<response>", "<session>"
"""Placeholders for the ids of the last command that a client received."""


def _with_marks(text: str) -> str:
    """Put placeholders into results, so that they can match this run's commands."""
    if '"command_results"' not in text:
        return text
    members: Members = json.loads(text)
    return json.dumps({**members, "prev_response_id": _RESPONSE, "session_id": _SESSION})


def _aimed(text: str) -> list[str]:
    """Messages about uninvolved clients: a task for another device, and messages in others' names."""
    return [
        text,
        text.replace('"target_id": "device_001"', f'"target_id": "{BYSTANDER}"'),
        text.replace("demo@device_001", ITS_CONSTELLATION),
        text.replace("device_001", BYSTANDER),
    ]


def _conversation(name: str, aim: int) -> list[Step]:
    registrations = [frame for frame in FRAMES["registration_ok"] if frame.receiver == "server"]
    said = [frame for frame in FRAMES[name] if frame.receiver == "server"]
    return [
        *(Say(frame.sender, frame.text) for frame in registrations),
        *(Say(frame.sender, _aimed(_with_marks(frame.text))[aim]) for frame in said),
    ]


_TEXTS: Final = [_with_marks(text) for text in TO_SERVER]
_what = damaged([each for text in _TEXTS for each in _aimed(text)])
_who = st.sampled_from(WHO)
_any_step: st.SearchStrategy[Step] = st.one_of(
    st.builds(Say, _who, _what, st.just(False), st.booleans()),
    st.builds(Say, _who, st.sampled_from(_TEXTS)),
    st.builds(Say, _who, st.binary(max_size=200)),
    st.builds(Say, _who, st.binary(max_size=200), st.just(True)),
    st.builds(Leave, _who),
    st.builds(Pause, st.sampled_from([0.0, 1.0, 40.0, 700.0])),
)


def _damage(step: Step) -> st.SearchStrategy[Step]:
    if isinstance(step, Say) and isinstance(step.text, str):
        return st.builds(Say, st.just(step.who) | _who, damaged([step.text]), st.just(False), st.booleans())
    return _any_step


# Only one recording has commands for a device, and it has the most to damage.
_names = st.sampled_from([*sorted(FRAMES), *["task_with_commands"] * 10])
_scripts = st.tuples(_names, st.sampled_from([0, 0, 1])).flatmap(
    lambda which: transcripts(_conversation(*which), _any_step, _damage)
)


async def _session(task: ServerTask) -> object:
    """Run the requests of the recordings and any others."""
    what, _, more = task.request.partition(":")
    match what:
        case "cmd":
            commands = [Command(f"tool_{number}", ToolType.ACTION, {"i": number}) for number in range(2)]
            return [attrs.asdict(result) for result in await task.execute(commands, timeout=5)]
        case "sleep":
            await trio.sleep(0.4)
        case "fail":
            raise TaskFailed("as requested", result=more)
        case "raise":
            raise RuntimeError(more)
        case _:
            pass
    return {"echo": task.request}


class _Visitor:
    """A client that may reconnect, and the last command that it received."""

    def __init__(self, server: MemoryServer, nursery: trio.Nursery) -> None:
        self._server = server
        self._nursery = nursery
        self._client: RawClient | None = None
        self._scope = trio.CancelScope()
        self._ids = ("", "")

    async def come(self) -> None:
        """Connect; the server may still be closing the previous connection."""
        self._scope = trio.CancelScope()
        await self._nursery.start(self._stay)

    async def leave(self) -> None:
        self._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def _stay(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._scope:
            async with open_raw_client(self._server.connect()) as client:
                self._client = client
                task_status.started()
                try:
                    while True:
                        message = await client.receive(math.inf)
                        if message["type"] == "command":
                            self._ids = str(message["response_id"]), str(message["session_id"])
                except TransportEnded:
                    await trio.sleep_forever()

    async def say(self, step: Say) -> None:
        """Send it; lost after the end of the connection."""
        assert self._client is not None
        if isinstance(step.text, str):
            self._client.send_text(step.text.replace(_RESPONSE, self._ids[0]).replace(_SESSION, self._ids[1]))
            return
        opcode = Opcode.BINARY if step.binary else Opcode.TEXT
        frame = FrameProtocol(client=True, extensions=[])._serialize_frame(opcode, step.text)
        try:
            await trio.testing.wait_all_tasks_blocked()
            await self._client.send_bytes(bytes(frame))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def _ask(client: RawClient, wanted: str, **members: object) -> Members:
    """Send a message and receive its reply, skipping messages that other clients caused."""
    client.send(**members)
    while True:
        reply = await client.receive()
        assert reply["type"] != "error"
        if reply["type"] == wanted and reply.get("session_id") == members.get("session_id"):
            return reply


async def _are_well(device: RawClient, constellation: RawClient, number: int) -> None:
    """Check that uninvolved clients get their replies."""
    await _ask(device, "heartbeat", type="heartbeat", status="ok")
    info = await _ask(
        constellation,
        "device_info_response",
        type="device_info_request",
        status="ok",
        client_type="constellation",
        target_id=BYSTANDER,
        request_id=f"q{number}",
    )
    assert (info["response_id"], info["result"]) == (f"q{number}", {"device_id": BYSTANDER, "platform": "linux"})
    submit(constellation, f"own-{number}", f"own {number}", BYSTANDER)
    end: Members = {}
    while end.get("type") != "task_end" or end["session_id"] != f"own-{number}":
        end = await constellation.receive()
        assert end["type"] != "error"
    assert (end["status"], end["result"]) == ("completed", {"echo": f"own {number}"})


async def _visit(script: list[Step]) -> None:
    async with open_memory_server(session=_session, limits=SMALL) as server:
        async with open_raw_client(server.connect()) as device, open_raw_client(server.connect()) as constellation:
            await register_device(device, BYSTANDER)
            await register_constellation(constellation, ITS_CONSTELLATION, BYSTANDER)
            over = trio.Event()

            async def ask_on_and_on() -> None:
                rounds = itertools.count()
                while not over.is_set():
                    await _are_well(device, constellation, next(rounds))
                    with trio.move_on_after(20):
                        await over.wait()
                await _are_well(device, constellation, next(rounds))

            async with trio.open_nursery() as asking:
                asking.start_soon(ask_on_and_on)
                async with trio.open_nursery() as nursery:
                    visitors = {who: _Visitor(server, nursery) for who in WHO}
                    for visitor in visitors.values():
                        await visitor.come()
                    for step in script:
                        await _take(step, visitors)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                over.set()
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics() == ServerStatistics(2, 1, 1, 0)
            assert (server.devices, server.constellations) == ([BYSTANDER], [ITS_CONSTELLATION])
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)


async def _take(step: Step, visitors: dict[str, _Visitor]) -> None:
    match step:
        case Say():
            await visitors[step.who].say(step)
            if not step.hurry:
                await trio.testing.wait_all_tasks_blocked()
        case Leave():
            await visitors[step.who].leave()
            await visitors[step.who].come()
        case Pause():
            await trio.sleep(step.seconds)


@fuzz(20, script=_scripts)
def test_any_messages_leave_the_server_running_and_leave_nothing_behind(script: list[Step]) -> None:
    with errors_logged() as errors:
        simulate(_visit, script)
    assert errors == []
