"""Malicious clients affect no other client and leave nothing behind."""

from __future__ import annotations

import gc
import json
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio._transport import inbound_limits
from galaxy_trio._transport.websocket import Transport
from galaxy_trio.messages import ClientMessageType, Command, ToolType
from galaxy_trio.server import ServerLimits, ServerTask
from galaxy_trio.server.client_handler import ClientHandler
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.raw_client import Members, RawClient, open_raw_client
from tests.server.support.server_cast import (
    CONSTELLATION,
    DEVICE,
    Cast,
    answer,
    end_of,
    open_cast,
    register_constellation,
    register_device,
    start_task,
    submit,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LOOK = Command("look", ToolType.DATA_COLLECTION, call_id="c")
SECRET = "what only the two may know"
EVIL = "evil"


async def _look(task: ServerTask) -> object:
    [seen] = await task.execute([LOOK])
    return seen.result


async def _are_well(cast: Cast) -> None:
    """Check that both clients get a reply and have received nothing else."""
    cast.device.send(type="heartbeat", status="ok")
    cast.constellation.send(type="heartbeat", status="ok", client_type="constellation")
    for client in (cast.device, cast.constellation):
        reply = await client.receive()
        assert (reply["type"], reply["status"], reply.get("session_id")) == ("heartbeat", "ok", None)


@asynccontextmanager
async def _open_evil(cast: Cast, target: str | None = DEVICE) -> AsyncGenerator[RawClient]:
    async with open_raw_client(cast.server.connect()) as evil:
        await register_constellation(evil, EVIL, target)
        yield evil


@pytest.mark.parametrize("type_", [type_.value for type_ in ClientMessageType])
@pytest.mark.parametrize(
    ("forged", "words"),
    [
        ({"client_id": CONSTELLATION}, "client_id does not match the registered connection"),
        ({"client_id": DEVICE, "client_type": "device"}, "client_id does not match the registered connection"),
        ({"client_id": ""}, "client_id does not match the registered connection"),
        ({"client_type": "device"}, "client_type does not match the registered connection"),
        ({"client_id": EVIL, "client_type": "device"}, "client_type does not match the registered connection"),
    ],
)
async def test_message_in_anothers_name_or_role_is_refused_without_effect(
    type_: str, forged: Members, words: str
) -> None:
    async with open_cast(_look) as cast, _open_evil(cast) as evil:
        await start_task(cast.constellation, "s", "r")
        command = await cast.device.receive()
        before = cast.server.statistics()
        message = {
            "type": type_,
            "status": "ok",
            "client_type": "constellation",
            "target_id": DEVICE,
            "session_id": command["session_id"],
            "prev_response_id": command["response_id"],
            "action_results": [{"status": "success", "result": "forged", "call_id": "c"}],
            "request_id": "q",
            **forged,
        }
        evil.send(**message)
        refusal = await evil.receive()
        assert (refusal["type"], refusal["error"]) == ("error", words)
        assert cast.server.statistics() == before
        await _are_well(cast)
        answer(cast.device, command, {"status": "success", "result": SECRET, "call_id": "c"})
        for client in (cast.device, cast.constellation):
            assert await end_of(client, "s") == ("completed", SECRET, None)


@pytest.mark.parametrize("role", ["device", "constellation"])
@pytest.mark.parametrize("name", [DEVICE, CONSTELLATION])
async def test_taken_name_is_refused_in_either_role_and_its_owner_stays(role: str, name: str) -> None:
    async with open_cast() as cast, open_raw_client(cast.server.connect()) as evil:
        evil.send(
            type="register",
            status="ok",
            client_type=role,
            client_id=name,
            target_id=DEVICE,
            metadata={"system_info": {"device_id": name, "platform": "linux", "hostname": "forged"}},
        )
        [refusal], code = await evil.receive_until_ended()
        assert "already registered" in str(refusal["error"])
        assert code == 1000
        await trio.testing.wait_all_tasks_blocked()
        assert [client.client_id for client in cast.server.clients()] == [DEVICE, CONSTELLATION]
        assert "forged" not in str(cast.server.clients())
        await _are_well(cast)


async def test_another_clients_session_cannot_be_joined_or_ended() -> None:
    async with open_cast(_look) as cast:
        async with _open_evil(cast) as evil:
            await start_task(cast.constellation, "s", SECRET)
            command = await cast.device.receive()
            submit(evil, "s")
            assert (await evil.receive())["error"] == "session_id 's' is owned by another client"
            evil.send(type="task_end", status="completed", client_type="constellation", session_id="s", result=1)
            assert "Unknown message type" in str((await evil.receive())["error"])
            evil.send(type="command_results", status="ok", client_type="constellation", session_id="s")
            await evil.close()
        await trio.testing.wait_all_tasks_blocked()
        answer(cast.device, command, {"status": "success", "result": 5, "call_id": "c"})
        assert await end_of(cast.constellation, "s") == ("completed", 5, None)


_ids = st.sampled_from([None, "s", "of nobody", EVIL, DEVICE, CONSTELLATION, "", "c"])
_members = st.fixed_dictionaries(
    {
        "type": st.sampled_from([*(type_.value for type_ in ClientMessageType), "command", "nonsense"]),
        "status": st.sampled_from(["ok", "failed", "nonsense"]),
    },
    optional={
        "client_type": st.sampled_from(["constellation", "constellation", "device", 5]),
        "client_id": _ids,
        "session_id": _ids,
        "target_id": _ids,
        "request": st.sampled_from([None, "do evil", 5]),
        "request_id": _ids,
        "prev_response_id": _ids | st.just("RESPONSE_ID"),
        "action_results": st.sampled_from([None, [], [{"status": "success", "call_id": "c", "result": "forged"}], 5]),
        "metadata": st.sampled_from([None, {}, {"system_info": {"device_id": DEVICE}}]),
    },
)
_said = st.lists(
    _members.map(json.dumps) | st.sampled_from(["", "{", "[]", "null", "[" * 5000, '"\\ud800"']), max_size=30
)


def _is_fair(text: str) -> bool:
    """A regular task: for the device, under the constellation's own name."""
    message = json.loads(text)
    task = message["type"] == "task" and message.get("target_id") == DEVICE
    return bool(task and message.get("session_id") != "s")


@settings(max_examples=40)
@given(said=_said)
async def test_no_message_of_a_client_affects_or_reveals_anothers_task(said: list[str]) -> None:
    async with open_cast(_look) as cast, _open_evil(cast) as evil, trio.open_nursery() as nursery:
        heard: list[Members] = []

        async def listen() -> None:
            messages, _ = await evil.receive_until_ended()
            heard.extend(messages)

        nursery.start_soon(listen)
        await start_task(cast.constellation, "s", SECRET)
        command = await cast.device.receive()
        sent = 0
        for text in said:
            if not (text.startswith('{"') and _is_fair(text)):
                # Even with a guessed command id.
                evil.send_text(text.replace("RESPONSE_ID", str(command["response_id"])))
                sent += 1
        await trio.testing.wait_all_tasks_blocked()
        await _are_well(cast)
        answer(cast.device, command, {"status": "success", "result": SECRET, "call_id": "c"})
        for client in (cast.device, cast.constellation):
            assert await end_of(client, "s") == ("completed", SECRET, None)
        await evil.close()
        await trio.testing.wait_all_tasks_blocked()
        # At most one reply to each message, and none with another client's data.
        assert len(heard) <= sent
        assert SECRET not in str(heard)
        statistics = cast.server.statistics()
        assert (statistics.connections, statistics.sessions, statistics.ending_sessions) == (2, 0, 0)
        assert statistics.bytes_held == 0
        await _are_well(cast)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("registered", [True, False])
async def test_text_nested_100_000_deep_is_a_broken_message(opening: str, registered: bool) -> None:
    async with open_cast() as cast, open_raw_client(cast.server.connect()) as evil:
        if registered:
            await register_constellation(evil, EVIL)
        evil.send_text('{"type": "heartbeat", "status": "ok", "metadata": {"a": ' + opening * 100_000)
        assert "nested too deep" in str((await evil.receive())["error"])
        if registered:
            evil.send(type="heartbeat", status="ok", client_type="constellation")
            assert (await evil.receive())["type"] == "heartbeat"
        else:
            assert await evil.close_code() == 1008
        await _are_well(cast)


async def test_names_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="galaxy_trio")
    forged = "x\nWARNING all is lost\r\u2028"

    async def session(task: ServerTask) -> object:
        raise ValueError("y" * 2000)

    async with open_cast(session, ServerLimits(max_message_size=1185)) as cast:
        async with open_raw_client(cast.server.connect()) as evil:
            await register_device(evil, forged)
            evil.send(type="command_results", status="ok", session_id=forged, prev_response_id=forged)
            evil.send(type="device_info_response", status="ok", session_id=forged)
            evil.send(type=forged, status="ok")
            assert (await evil.receive())["type"] == "error"
            # The acknowledgement just fits into a message; no end does.
            evil.send(type="task", status="continue", session_id=forged + "y" * (1000 - len(forged)))
            assert (await evil.receive())["type"] == "heartbeat"
            await trio.testing.wait_all_tasks_blocked()
    for words in ("sent results for no", "sent device information", "could not be sent", "failed", "connected"):
        assert words in caplog.text
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if len(line.splitlines()) > 1] == []


def _fragments(count: int) -> bytes:
    """A text message that begins with so many empty fragments, each with a mask."""
    return b"\x01\x80mask" + b"\x00\x80mask" * (count - 1)


async def test_endless_empty_fragments_end_only_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reaching the real limit would take seconds.
    monkeypatch.setattr(inbound_limits, "MAX_FRAGMENTS", 1000)
    async with open_cast() as cast, _open_evil(cast) as evil:
        await evil.send_bytes(_fragments(1000))
        await trio.testing.wait_all_tasks_blocked()
        assert EVIL in cast.server.constellations
        await evil.send_bytes(b"\x00\x80mask")
        assert await evil.close_code() == 1009
        await trio.testing.wait_all_tasks_blocked()
        assert EVIL not in cast.server.constellations
        await _are_well(cast)


_BROKEN_FRAMES: dict[str, tuple[bytes, int]] = {
    "a frame without a mask": (b"\x81\x02{}", 1002),
    "a reserved bit": (b"\xc1\x80mask", 1002),
    "an unknown opcode": (b"\x83\x80mask", 1002),
    "a continuation of nothing": (b"\x80\x80mask", 1002),
    "a ping in fragments": (b"\x09\x80mask", 1002),
    "a ping of 126 bytes": (b"\x89\xfe\x00\x7emask" + bytes(126), 1002),
    "a text that is no UTF-8": (b"\x81\x81\x00\x00\x00\x00\xff", 1007),
    "a message announced as larger than the limit": (b"\x81\xff\x00\x00\x00\x00\x10\x00\x00\x00mask", 1009),
    "a length of 63 bits": (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask", 1009),
    "no frame at all": (b"GET / HTTP/1.1\r\n\r\n", 1002),
}


@pytest.mark.parametrize("what", _BROKEN_FRAMES)
@pytest.mark.parametrize("registered", [True, False])
async def test_bytes_that_break_the_websocket_protocol_end_only_their_connection(
    what: str, registered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data, code = _BROKEN_FRAMES[what]
    async with open_cast() as cast, open_raw_client(cast.server.connect()) as evil:
        if registered:
            await register_constellation(evil, EVIL)
        await evil.send_bytes(data)
        assert await evil.close_code() == code
        await trio.testing.wait_all_tasks_blocked()
        assert cast.server.statistics().connections == 2
        await _are_well(cast)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("registered", [True, False])
async def test_binary_frames_are_broken_messages_however_many_fragments_they_have(registered: bool) -> None:
    async with open_cast() as cast, open_raw_client(cast.server.connect()) as evil:
        if registered:
            await register_constellation(evil, EVIL)
        await evil.send_bytes(b"\x02\x82\x00\x00\x00\x00\x01\x02" + b"\x00\x80mask" + b"\x80\x81\x00\x00\x00\x00\x03")
        assert "a binary frame of 3 bytes" in str((await evil.receive())["error"])
        if not registered:
            assert await evil.close_code() == 1008
        await _are_well(cast)


async def test_flood_of_pings_without_reading_holds_one_pong() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_end)
    async with open_cast() as cast, trio.open_nursery() as nursery:
        nursery.start_soon(cast.server.serve_stream, stream)
        async with open_raw_client(client_end) as evil:
            await register_constellation(evil, EVIL)
            stream.stall()
            for _ in range(20):
                await evil.send_bytes((b"\x89\xfdmask" + bytes(125)) * 100)
                await trio.testing.wait_all_tasks_blocked()
                assert cast.server.statistics().bytes_held < 300
            await _are_well(cast)


async def test_flood_of_tasks_runs_up_to_the_limit_and_refuses_the_rest() -> None:
    gate = trio.Event()

    async def session(task: ServerTask) -> object:
        if task.client_id == EVIL:
            await gate.wait()
        return task.request

    async with open_cast(session, ServerLimits(max_sessions=20)) as cast, _open_evil(cast) as evil:
        for number in range(1000):
            submit(evil, f"evil-{number}")
        await start_task(cast.constellation, "s", "served meanwhile")
        assert (await end_of(cast.constellation, "s"))[1] == "served meanwhile"
        replies = [await evil.receive() for _ in range(1000)]
        assert [reply["type"] for reply in replies] == ["heartbeat"] * 20 + ["error"] * 980
        assert cast.server.statistics().sessions == 20
        await evil.abort()
        await trio.testing.wait_all_tasks_blocked()
        statistics = cast.server.statistics()
        assert (statistics.sessions, statistics.ending_sessions, statistics.connections) == (0, 0, 2)
        assert (await end_of(cast.device, "s"))[0] == "completed"


async def test_flood_of_results_has_no_effect_and_leaves_nothing() -> None:
    async with open_cast(_look) as cast, open_raw_client(cast.server.connect()) as evil:
        await register_device(evil, EVIL)
        await start_task(cast.constellation, "s")
        command = await cast.device.receive()
        for number in range(1000):
            answer(evil, command, {"status": "success", "result": "forged"}, session_id=f"s{number}")
            answer(evil, command, {"status": "success", "result": "forged"})
        answer(cast.device, command, {"status": "success", "result": "own"})
        assert await end_of(cast.constellation, "s") == ("completed", "own", None)
        await trio.testing.wait_all_tasks_blocked()
        assert cast.server.statistics().unexpected_results == 2000
        await evil.abort()
        await trio.testing.wait_all_tasks_blocked()
        assert cast.server.statistics().unexpected_results == 0


async def test_refused_and_broken_clients_leave_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cast() as cast:

        async def come_and_go() -> None:
            for data in (b"\x81\x02{}", b"\x81\x80mask", _fragments(50), b"\x02\x80mask"):
                for registered in (True, False):
                    async with open_raw_client(cast.server.connect()) as evil:
                        if registered:
                            await register_constellation(evil, EVIL)
                        await evil.send_bytes(data)
                        await trio.testing.wait_all_tasks_blocked()
                    await trio.testing.wait_all_tasks_blocked()

        await come_and_go()
        before = _alive()
        for _ in range(3):
            await come_and_go()
        assert _alive() == before
        await _are_well(cast)


def _alive() -> int:
    gc.collect()
    return sum(isinstance(item, ClientHandler | Transport | RawClient) for item in gc.get_objects())


async def _drip(stream: trio.abc.Stream, data: bytes) -> None:
    """Send one byte per second until the stream ends."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for number in range(len(data)):
            await stream.send_all(data[number : number + 1])
            await trio.sleep(1)
        raise AssertionError("all was taken")


async def _closed_at(stream: trio.abc.Stream) -> float:
    with suppress(trio.BrokenResourceError), trio.fail_after(1000):
        while await stream.receive_some():
            pass
    return trio.current_time()


def _tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("server.test").configure_cert(of_server)  # pyright: ignore[reportUnknownMemberType]
    authority.configure_trust(of_client)  # pyright: ignore[reportUnknownMemberType]
    return of_server, of_client


_REQUEST = b"GET /ws HTTP/1.1\r\nHost: server.test\r\nX: " + b"x" * 200


def _client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="server.test")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("what", ["HTTP", "TLS", "HTTP on TLS", "TLS and then nothing"])
async def test_handshake_of_one_byte_per_second_ends_at_the_handshake_timeout(
    what: str, autojump_clock: trio.testing.MockClock
) -> None:
    of_server, of_client = _tls()
    async with open_cast() as cast, trio.open_nursery() as nursery:
        client_end, server_end = trio.testing.memory_stream_pair()
        stream: trio.abc.Stream = client_end
        if what == "HTTP":
            nursery.start_soon(cast.server.serve_stream, server_end)
        else:
            secure = trio.SSLStream(server_end, of_server, server_side=True, https_compatible=True)
            nursery.start_soon(cast.server.serve_stream, secure)
        if what in ("HTTP on TLS", "TLS and then nothing"):
            stream = trio.SSLStream(client_end, of_client, server_hostname="server.test", https_compatible=True)
            await stream.do_handshake()
        if what != "TLS and then nothing":
            nursery.start_soon(_drip, stream, _client_hello(of_client) if what == "TLS" else _REQUEST)
        assert await _closed_at(stream) == 10
        await trio.testing.wait_all_tasks_blocked()
        assert cast.server.statistics().connections == 2
        await _are_well(cast)


_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: server.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_BEGUN_MESSAGE = b"\x81\xfe\x04\x00\x00\x00\x00\x00" + b" " * 1000
_CLOSE = b"\x88\x02"


def _frame(text: str) -> bytes:
    """A client's frame with a message of less than 126 bytes."""
    return b"\x81" + bytes((0x80 | len(text), 0, 0, 0, 0)) + text.encode()


@pytest.mark.parametrize("registered", [False, True])
async def test_client_that_never_completes_a_message_is_closed_at_its_timeout(
    registered: bool, autojump_clock: trio.testing.MockClock
) -> None:
    limits = ServerLimits(register_timeout=30, idle_timeout=100, liveness_timeout=50)
    async with open_memory_server(limits=limits) as server, trio.open_nursery() as nursery:
        stream = server.connect()
        await stream.send_all(_HANDSHAKE)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        if registered:
            await stream.send_all(_frame('{"type":"register","status":"ok","client_id":"evil"}'))
        nursery.start_soon(_drip, stream, _BEGUN_MESSAGE)
        told = bytearray()
        while _CLOSE + (1000 if registered else 1008).to_bytes(2) not in told:
            told += (data := await stream.receive_some())
            assert data, told
        assert trio.current_time() == (100 if registered else 30)
        assert server.clients() == []
        # The client does not answer the close frame, for which it has 3 s.
        assert await _closed_at(stream) == (103 if registered else 33)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0
