"""The client repeats the recorded conversations with a scripted peer as the server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio import (
    Connection,
    ConnectionOptions,
    HandshakeRejected,
    RegistrationRejected,
    RequestRejected,
    TaskFailed,
    TaskResult,
    TaskStatus,
    open_connection,
)
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer, open_scripted_peer
from tests.connection.support.recordings import DATA, Close, Frame, frames, text_frames

# The fields that are not compared: times, nulls, task names, the metadata of the registration.
_OWN = {"timestamp", "task_name"}


def _comparable(members: dict[str, object]) -> dict[str, object]:
    compared = {name: value for name, value in members.items() if value is not None and name not in _OWN}
    if compared["type"] == "register":
        compared.pop("metadata", None)
    return compared


def _of_constellation(name: str) -> list[Frame]:
    return [frame for frame in text_frames(name) if "constellation" in (frame.sender, frame.receiver)]


async def _play(peer: ScriptedPeer, recorded: Sequence[Frame | Close]) -> None:
    """Play the recorded server: expect the recorded requests, and send the recorded replies with the current ids."""
    ids: dict[str, str] = {}
    for entry in recorded:
        if "constellation" not in (entry.sender, entry.receiver):
            continue
        if isinstance(entry, Close):
            await peer.close(entry.code)
        elif entry.sender == "constellation":
            sent, expected = json.loads(await peer.receive_text()), entry.json()
            for name in ("request_id", "session_id"):
                if name in expected:
                    ids[str(expected[name])] = sent[name]
                    expected[name] = sent[name]
            assert _comparable(sent) == _comparable(expected)
        else:
            members = json.loads(entry.text)
            for name in ("response_id", "session_id"):
                members[name] = ids.get(members[name], members[name])
            peer.send_json(members)


Use: TypeAlias = Callable[[Connection], Awaitable[None]]


async def _converse(name: str, use: Use) -> None:
    """Play a recording to a client that is registered under the recorded names."""
    async with (
        open_scripted_peer(client_id="demo@device_001") as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_play, peer, frames(name))
        with trio.fail_after(60):
            await use(peer.connection)
        await trio.testing.wait_all_tasks_blocked()
        statistics = peer.connection.statistics()
        assert (statistics.pending, statistics.unanswered) == (0, 0)
        assert (statistics.late_replies, statistics.unknown_replies, statistics.invalid_messages) == (0, 0, 0)


async def test_the_recorded_registration_succeeds() -> None:
    recorded = list(_of_constellation("registration_ok"))
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_play, peer, recorded)
        with trio.fail_after(60):
            async with open_connection(
                PEER_URL, "device_001", client_name="demo", client_id="demo@device_001", stream=peer.stream
            ) as connection:
                assert not connection.closed


async def test_the_registration_contains_the_same_metadata_as_the_originals() -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:

        async def connect() -> None:
            async with open_connection(PEER_URL, "device_001", client_name="demo", stream=peer.stream):
                pass

        nursery.start_soon(connect)
        sent = await peer.receive()
        recorded = _of_constellation("registration_ok")[0].json()
        assert sent.metadata == recorded["metadata"]
        peer.confirm()


async def test_the_recorded_heartbeat_is_sent_and_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(
        client_id="demo@device_001", options=ConnectionOptions(heartbeat_interval=30)
    ) as peer:
        await _play(peer, list(_of_constellation("heartbeat")[:2]))
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().unanswered == 0
        assert trio.current_time() >= 30


async def test_the_recorded_device_information_is_returned() -> None:
    async def use(connection: Connection) -> None:
        info = await connection.device_info()
        assert (info.device_id, info.platform, info.cpu_count, info.memory_total_gb) == (
            "device_001",
            "linux",
            8,
            15.63,
        )
        assert info.supported_features == ["gui", "cli", "browser", "file_system", "office", "linux_apps"]
        assert (info.custom_metadata, info.extra) == ({}, {})

    await _converse("device_info_ok", use)


async def test_a_recorded_completed_task_returns_its_result() -> None:
    async def use(connection: Connection) -> None:
        result = await connection.run_task("echo:hello", task_id="t1")
        assert result == TaskResult("t1", "device_001", TaskStatus.COMPLETED, {"echo": "hello"})
        assert result.unwrap() == {"echo": "hello"}

    await _converse("task_completed", use)


async def test_a_recorded_failed_task_raises_its_error_from_unwrap() -> None:
    async def use(connection: Connection) -> None:
        result = await connection.run_task("fail:no such window", task_id="t2")
        assert result == TaskResult("t2", "device_001", TaskStatus.FAILED, {}, "no such window")
        with pytest.raises(TaskFailed, match="task t2 failed on device 'device_001': no such window"):
            result.unwrap()

    await _converse("task_failed", use)


async def test_a_recorded_task_that_ended_in_its_error_state_has_failed() -> None:
    async def use(connection: Connection) -> None:
        result = await connection.run_task("err:", task_id="t3")
        assert (result.status, result.error) == (TaskStatus.FAILED, None)
        with pytest.raises(TaskFailed, match="its error state") as caught:
            result.unwrap()
        assert caught.value.result == {"failure": "session ended with an error"}

    await _converse("task_ended_in_error", use)


async def test_two_recorded_interleaved_tasks_receive_their_own_results() -> None:
    async def use(connection: Connection) -> None:
        ended: list[str] = []

        async def run(request: str, task_id: str) -> None:
            result = await connection.run_task(request, task_id=task_id)
            ended.append(f"{task_id} {result.unwrap()}")

        async with trio.open_nursery() as nursery:
            # As in the recording, both are sent before either is accepted.
            nursery.start_soon(run, "sleep:0.4", "slow")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(run, "echo:quick", "quick")
        # The replies arrive in one piece, and trio runs their waiters in any order.
        assert sorted(ended) == ["quick {'echo': 'quick'}", "slow {'slept': '0.4'}"]

    await _converse("two_tasks_interleaved", use)


async def test_a_recorded_task_fails_when_its_device_disconnects() -> None:
    async def use(connection: Connection) -> None:
        result = await connection.run_task("sleep:30", task_id="t8")
        assert result.error == "Task was cancelled because target device disconnected"
        assert result.status is TaskStatus.FAILED

    await _converse("device_lost_mid_task", use)


async def test_a_recorded_task_for_a_disconnected_device_is_refused() -> None:
    async def use(connection: Connection) -> None:
        with pytest.raises(RequestRejected, match="Target device 'device_001' is not connected") as caught:
            await connection.run_task("echo:x", task_id="t9")
        assert caught.value.words == "Target device 'device_001' is not connected"

    await _converse("task_to_lost_device", use)


@pytest.mark.parametrize(
    ("first", "device_id", "words"),
    [
        (0, "device_001", "client_id 'demo@device_001' is already registered; duplicate registrations are not allowed"),
        (3, "device_404", "Target device 'device_404' is not connected"),
    ],
)
async def test_a_recorded_refusal_of_a_registration_is_raised_with_its_words(
    first: int, device_id: str, words: str
) -> None:
    recorded = frames("registration_errors")[first : first + 3]
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_play, peer, recorded)
        with trio.fail_after(60), pytest.raises(RegistrationRejected) as caught:
            async with open_connection(PEER_URL, device_id, client_id=f"demo@{device_id}", stream=peer.stream):
                raise AssertionError("not reached")
        assert caught.value.words == words
        assert device_id in str(caught.value)


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_a_recorded_status_403_is_a_rejected_handshake(token: str | None) -> None:
    statuses = [json.loads(line).get("handshake_status") for line in _lines("bad_token")]
    assert statuses[1:] == [403, 403]
    async with open_bare_peer() as peer:
        peer.reject_with = 403
        with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
            async with open_connection(PEER_URL, "device_001", token=token, stream=peer.stream):
                raise AssertionError("not reached")
        assert caught.value.status_code == 403


def _lines(name: str) -> list[str]:
    return (DATA / f"{name}.jsonl").read_text().splitlines()
