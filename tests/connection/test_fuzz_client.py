"""Damaged recordings and replies never hang a request or misroute a reply."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs
import trio
import trio.testing
from hypothesis import strategies as st

from galaxy_trio import (
    ConnectFailed,
    ConnectionOptions,
    DeviceInfo,
    InvalidMessage,
    RequestRejected,
    RequestTimeout,
    TaskResult,
    open_connection,
)
from galaxy_trio._codec.codec import encode, structure_device_info
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.messages import JSON, ClientMessage, ClientMessageType, ServerMessage, ServerMessageType, TaskStatus
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer, open_scripted_peer
from tests.constellation.support.calls import Call
from tests.support.fuzzing import FROM_SERVER, damaged, decoded, errors_logged, fuzz, recorded, simulate

if TYPE_CHECKING:
    from galaxy_trio import Connection

TIMEOUT: Final = 50.0


@attrs.frozen
class Ask:
    """The client asks for device information, or sends a task."""

    task: bool


@attrs.frozen
class Cancel:
    """The client cancels one of its requests."""

    which: int


@attrs.frozen
class Answer:
    """The server replies to one of its received messages, possibly again."""

    which: int
    acknowledge: bool
    damage: bool = False
    times: int = 1


@attrs.frozen
class Say:
    """The server sends a recorded message that may be damaged."""

    text: str


@attrs.frozen
class Pause:
    """Time passes without a message."""

    seconds: float


Step = Ask | Cancel | Answer | Say | Pause
_numbers = st.integers(0, 20)
_steps = st.lists(
    st.one_of(
        st.builds(Ask, st.booleans()),
        st.builds(Ask, st.booleans()),
        st.builds(Cancel, _numbers),
        st.builds(Answer, _numbers, st.booleans(), st.just(False), st.sampled_from([1, 1, 3])),
        st.builds(Answer, _numbers, st.booleans(), st.just(True)),
        st.builds(Answer, _numbers, st.booleans(), st.just(True)),
        st.builds(Say, damaged(FROM_SERVER)),
        st.builds(Pause, st.sampled_from([1.0, 31.0])),
    ),
    max_size=25,
)


def _reply(message: ClientMessage, acknowledge: bool) -> str:
    """Make a valid reply whose result is unique to the request."""
    fields: dict[str, JSON] = {"timestamp": "2026-11-22T21:02:22.623130+00:00", "response_id": "r"}
    match message.type:
        case ClientMessageType.DEVICE_INFO_REQUEST:
            type_ = ServerMessageType.DEVICE_INFO_RESPONSE
            fields |= {"response_id": message.request_id}
            fields["result"] = {"device_id": "device_001", "platform": "linux", "hostname": message.request_id}
        case ClientMessageType.TASK if not acknowledge:
            type_ = ServerMessageType.TASK_END
            fields |= {"session_id": message.session_id, "result": message.session_id}
        case _:
            type_ = ServerMessageType.HEARTBEAT
            fields["session_id"] = message.session_id
    status = TaskStatus.COMPLETED if type_ is ServerMessageType.TASK_END else TaskStatus.OK
    return encode(ServerMessage(type_, status, **fields))  # type: ignore[arg-type]


@attrs.frozen
class _Asked:
    """A request of the client, with the name in its replies."""

    name: str
    call: Call


class _World:
    def __init__(self, peer: ScriptedPeer, nursery: trio.Nursery, data: st.DataObject) -> None:
        self._peer = peer
        self._nursery = nursery
        self._data = data
        self._received: list[ClientMessage] = []
        self.asked: list[_Asked] = []
        self.cancelled: list[_Asked] = []
        self.said: list[str] = []

    async def take(self, step: Step) -> None:
        match step:
            case Ask(task):
                await self.ask(task)
            case Cancel(which) if self.asked:
                asked = self.asked[which % len(self.asked)]
                self.cancelled.append(asked)
                asked.call.scope.cancel()
            case Answer(which, acknowledge, damage, times):
                self._received += self._peer.received_nowait()
                if self._received:
                    text = _reply(self._received[which % len(self._received)], acknowledge)
                    for _ in range(times):
                        self.say(self._data.draw(damaged([text])) if damage else text)
            case Say(text):
                self.say(text)
            case Pause(seconds):
                await trio.sleep(seconds)
            case _:
                pass

    async def ask(self, task: bool) -> _Asked:
        """Send a request and take its name from the message."""
        connection, number = self._peer.connection, len(self.asked)
        self._received += self._peer.received_nowait()
        call = Call()

        async def make() -> object:
            if task:
                return await connection.run_task(f"do {number}", task_id=f"t{number}", timeout=TIMEOUT)
            return await connection.device_info(timeout=TIMEOUT)

        self._nursery.start_soon(call.run, make)
        await trio.testing.wait_all_tasks_blocked()
        [message] = [one for one in self._peer.received_nowait() if one.type != ClientMessageType.HEARTBEAT]
        self._received.append(message)
        name = message.session_id if task else message.request_id
        assert name is not None
        self.asked.append(_Asked(name, call))
        return self.asked[-1]

    def say(self, text: str) -> None:
        self.said.append(text)
        self._peer.send_text(text)


def _was_sent(said: list[ServerMessage], name: str, ending: object) -> bool:
    """Whether one of the messages is a reply to this request with this outcome."""
    if isinstance(ending, TaskResult):
        reported = (ServerMessageType.TASK_END, name, ending.status, ending.error)
        return any(
            (one.type, one.session_id, one.status, one.error) == reported and repr(one.result) == repr(ending.result)
            for one in said
        )
    assert isinstance(ending, DeviceInfo)
    return any(
        one.type is ServerMessageType.DEVICE_INFO_RESPONSE
        and one.response_id == name
        and _has_fields(one.result, ending)
        for one in said
    )


def _has_fields(result: JSON, info: DeviceInfo) -> bool:
    try:
        return repr(structure_device_info(result)) == repr(info)
    except InvalidMessage:
        return False


async def _converse(script: list[Step], data: st.DataObject) -> None:
    async with (
        open_scripted_peer(options=ConnectionOptions(liveness_timeout=math.inf)) as peer,
        trio.open_nursery() as nursery,
    ):
        world = _World(peer, nursery, data)
        for step in script:
            await world.take(step)
            assert not peer.connection.closed
        await trio.testing.wait_all_tasks_blocked()
        last = await world.ask(False)
        world.say(
            _reply(ClientMessage(ClientMessageType.DEVICE_INFO_REQUEST, TaskStatus.OK, request_id=last.name), True)
        )
        await trio.sleep(TIMEOUT + 1)
        _check(world, peer.connection)
        assert isinstance(last.call.ending, DeviceInfo)
        assert last.call.ending.hostname == last.name


def _check(world: _World, connection: Connection) -> None:
    said = decoded(world.said)
    replies = 0
    for asked in world.asked:
        # Each request has exactly one outcome.
        match asked.call.ending:
            case TaskResult() | DeviceInfo() as ending:
                assert _was_sent(said, asked.name, ending)
                replies += 1
            case RequestRejected() | InvalidMessage():
                replies += 1
            case RequestTimeout():
                pass
            case _:
                assert asked.call.cancelled
                assert asked in world.cancelled
    assert replies <= len(world.said)
    statistics = connection.statistics()
    assert (statistics.pending, statistics.bytes_held) == (0, 0)
    assert statistics.messages_received == len(world.said) + 1
    assert statistics.unanswered <= len(world.asked) + 100


@fuzz(25, script=_steps, data=st.data())
def test_every_request_ends_once_with_its_own_reply_whatever_a_server_sends(
    script: list[Step], data: st.DataObject
) -> None:
    with errors_logged() as errors:
        simulate(_converse, script, data)
    assert errors == []


_SMALL_TALK: Final = damaged(recorded(sender="server", receiver="constellation"))


async def _register(texts: list[str], confirm: bool) -> None:
    async with open_bare_peer() as peer:

        async def talk() -> None:
            await peer.receive()
            for text in texts:
                peer.send_text(text)
            if confirm:
                peer.confirm()

        failure: Exception | None = None
        async with open_background() as nursery:
            nursery.start_soon(talk)
            try:
                async with open_connection(
                    PEER_URL,
                    "device_001",
                    client_name="demo",
                    stream=peer.stream,
                    options=ConnectionOptions(register_timeout=5),
                ) as connection:
                    await trio.testing.wait_all_tasks_blocked()
                    assert connection.statistics().pending == 0
            except (ConnectFailed, InvalidMessage) as error:
                failure = error
    assert len(str(failure)) < 1_000
    # Without other messages, only the confirmation decides.
    assert texts or (failure is None) == confirm
    assert peer.stream.closed


@fuzz(25, texts=st.lists(_SMALL_TALK, max_size=4), confirm=st.booleans())
def test_a_registration_succeeds_or_fails_whatever_a_server_sends(texts: list[str], confirm: bool) -> None:
    with errors_logged() as errors:
        simulate(_register, texts, confirm)
    assert errors == []
