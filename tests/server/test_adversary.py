"""Malicious messages have no effect on other clients."""

from __future__ import annotations

import gc
import json

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.messages import ClientMessageType
from galaxy_trio.server import ServerLimits, ServerTask
from galaxy_trio.server.client_handler import ClientHandler
from galaxy_trio.testing import FaultyStream
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    answer,
    end_of,
    open_clients,
    register_constellation,
    register_device,
    start_task,
    submit,
)
from tests.server.support.evil_client import EVIL, SECRET, empty_fragments, look, open_evil
from tests.server.support.raw_client import Members, RawClient, answering_pings, open_raw_client


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
    async with open_clients(look) as clients, open_evil(clients) as evil:
        await start_task(clients.constellation, "s", "r")
        command = await clients.device.receive()
        before = clients.server.statistics()
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
        assert clients.server.statistics() == before
        await clients.check()
        answer(clients.device, command, {"status": "success", "result": SECRET, "call_id": "c"})
        for client in (clients.device, clients.constellation):
            assert await end_of(client, "s") == ("completed", SECRET, None)


@pytest.mark.parametrize("role", ["device", "constellation"])
@pytest.mark.parametrize("name", [DEVICE, CONSTELLATION])
async def test_taken_name_is_refused_in_either_role_and_its_owner_stays(role: str, name: str) -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as evil:
        async with answering_pings(clients.device, clients.constellation):
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
        assert [client.client_id for client in clients.server.clients()] == [DEVICE, CONSTELLATION]
        assert "forged" not in str(clients.server.clients())
        await clients.check()


async def test_another_clients_session_cannot_be_joined_or_ended() -> None:
    async with open_clients(look) as clients:
        async with open_evil(clients) as evil:
            await start_task(clients.constellation, "s", SECRET)
            command = await clients.device.receive()
            submit(evil, "s")
            assert (await evil.receive())["error"] == "session_id 's' is owned by another client"
            evil.send(type="task_end", status="completed", client_type="constellation", session_id="s", result=1)
            assert "Unknown message type" in str((await evil.receive())["error"])
            evil.send(type="command_results", status="ok", client_type="constellation", session_id="s")
            await evil.close()
        await trio.testing.wait_all_tasks_blocked()
        answer(clients.device, command, {"status": "success", "result": 5, "call_id": "c"})
        assert await end_of(clients.constellation, "s") == ("completed", 5, None)


_ids = st.sampled_from([None, "s", "unknown", EVIL, DEVICE, CONSTELLATION, "", "c"])

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
    async with open_clients(look) as clients, open_evil(clients) as evil, trio.open_nursery() as nursery:
        heard: list[Members] = []

        async def listen() -> None:
            messages, _ = await evil.receive_until_ended()
            heard.extend(messages)

        nursery.start_soon(listen)
        await start_task(clients.constellation, "s", SECRET)
        command = await clients.device.receive()
        sent = 0
        for text in said:
            if not (text.startswith('{"') and _is_fair(text)):
                # Even with a guessed command id.
                evil.send_text(text.replace("RESPONSE_ID", str(command["response_id"])))
                sent += 1
        await trio.testing.wait_all_tasks_blocked()
        await clients.check()
        answer(clients.device, command, {"status": "success", "result": SECRET, "call_id": "c"})
        for client in (clients.device, clients.constellation):
            assert await end_of(client, "s") == ("completed", SECRET, None)
        await evil.close()
        await trio.testing.wait_all_tasks_blocked()
        # At most one reply to each message, and none with another client's data.
        assert len(heard) <= sent
        assert SECRET not in str(heard)
        statistics = clients.server.statistics()
        assert (statistics.connections, statistics.sessions, statistics.ending_sessions) == (2, 0, 0)
        assert statistics.bytes_held == 0
        await clients.check()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("registered", [True, False])
async def test_text_nested_10_000_deep_is_a_broken_message(opening: str, closing: str, registered: bool) -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as evil:
        if registered:
            await register_constellation(evil, EVIL)
        nested = f"{opening * 10_000}1{closing * 10_000}"
        evil.send_text(f'{{"type": "heartbeat", "status": "ok", "metadata": {{"a": {nested}}}}}')
        assert "nested too deep" in str((await evil.receive())["error"])
        if registered:
            evil.send(type="heartbeat", status="ok", client_type="constellation")
            assert (await evil.receive())["type"] == "heartbeat"
        else:
            assert await evil.close_code() == 1008
        await clients.check()


async def test_names_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="galaxy_trio")
    forged = "x\nWARNING all is lost\r\u2028"

    async def session(task: ServerTask) -> object:
        raise ValueError("y" * 2000)

    async with open_clients(session, ServerLimits(max_message_size=1185)) as clients:
        async with open_raw_client(clients.server.connect()) as evil:
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


async def test_flood_of_pings_without_reading_holds_one_pong() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_end)
    async with open_clients() as clients, trio.open_nursery() as nursery:
        nursery.start_soon(clients.server.serve_stream, stream)
        async with open_raw_client(client_end) as evil:
            await register_constellation(evil, EVIL)
            stream.stall()
            for _ in range(20):
                await evil.send_bytes((b"\x89\xfdmask" + bytes(125)) * 100)
                await trio.testing.wait_all_tasks_blocked()
                assert clients.server.statistics().bytes_held < 300
            await clients.check()


async def test_flood_of_tasks_runs_up_to_the_limit_and_refuses_the_rest() -> None:
    gate = trio.Event()

    async def session(task: ServerTask) -> object:
        if task.client_id == EVIL:
            await gate.wait()
        return task.request

    async with open_clients(session, ServerLimits(max_sessions=20)) as clients, open_evil(clients) as evil:
        for number in range(1000):
            submit(evil, f"evil-{number}")
        await start_task(clients.constellation, "s", "served")
        assert (await end_of(clients.constellation, "s"))[1] == "served"
        replies = [await evil.receive() for _ in range(1000)]
        assert [reply["type"] for reply in replies] == ["heartbeat"] * 20 + ["error"] * 980
        assert clients.server.statistics().sessions == 20
        await evil.abort()
        await trio.testing.wait_all_tasks_blocked()
        statistics = clients.server.statistics()
        assert (statistics.sessions, statistics.ending_sessions, statistics.connections) == (0, 0, 2)
        assert (await end_of(clients.device, "s"))[0] == "completed"


async def test_flood_of_results_has_no_effect_and_leaves_nothing() -> None:
    async with open_clients(look) as clients, open_raw_client(clients.server.connect()) as evil:
        await register_device(evil, EVIL)
        await start_task(clients.constellation, "s")
        command = await clients.device.receive()
        for number in range(1000):
            answer(evil, command, {"status": "success", "result": "forged"}, session_id=f"s{number}")
            answer(evil, command, {"status": "success", "result": "forged"})
        answer(clients.device, command, {"status": "success", "result": "own"})
        assert await end_of(clients.constellation, "s") == ("completed", "own", None)
        await trio.testing.wait_all_tasks_blocked()
        assert clients.server.statistics().unexpected_results == 2000
        await evil.abort()
        await trio.testing.wait_all_tasks_blocked()
        assert clients.server.statistics().unexpected_results == 0


async def test_refused_and_broken_clients_leave_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients() as clients:

        async def come_and_go() -> None:
            for data in (b"\x81\x02{}", b"\x81\x80mask", empty_fragments(50), b"\x02\x80mask"):
                for registered in (True, False):
                    async with open_raw_client(clients.server.connect()) as evil:
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
        await clients.check()


def _alive() -> int:
    gc.collect()
    return sum(isinstance(item, ClientHandler | TrioWebSocket | RawClient) for item in gc.get_objects())
