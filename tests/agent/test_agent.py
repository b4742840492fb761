"""An agent: registered, registered again, and its end."""

from __future__ import annotations

import json
import ssl
import threading
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    DeviceInfo,
    HandshakeRejected,
    MessageTooLarge,
    Platform,
    RegistrationRejected,
    TaskStatus,
    open_connection,
)
from galaxy_trio.agent import Agent, collect_system_info, open_agent, tool
from galaxy_trio.messages import ClientMessageType, ClientType, ServerMessage, ServerMessageType
from galaxy_trio.server import ServerTask, open_server
from galaxy_trio.testing import PEER_URL, FaultyStream, MemoryServer, ScriptedPeer, open_memory_server
from tests.agent.support.agent_server import (
    DEVICE,
    INFO,
    Longest,
    call,
    open_agent_server,
    open_commanded_agent,
    send_batch,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.agent.support.agent_server import AgentServer

ALREADY = f"client_id {DEVICE!r} is already registered; duplicate registrations are not allowed"


def _to(server: MemoryServer) -> Callable[[], Awaitable[trio.abc.Stream]]:
    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return server.connect()

    return connect


# ---- registering


async def test_block_is_entered_once_the_device_is_registered_with_its_system_information() -> None:
    info = await collect_system_info(DEVICE)
    async with open_memory_server() as server:
        async with open_agent(server.url, DEVICE, connect=_to(server)) as agent:
            assert server.devices == [DEVICE]
            assert agent.registered
            assert agent.device_id == DEVICE
            await agent.wait_registered()
            async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
                assert await connection.device_info() == info
        await trio.testing.wait_all_tasks_blocked()
        assert server.devices == []
        assert not agent.registered


async def test_given_system_information_is_sent() -> None:
    info = DeviceInfo(DEVICE, "haiku", hostname="edge-1")
    async with open_memory_server() as server:
        async with open_agent(server.url, DEVICE, connect=_to(server), system_info=info):
            async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
                assert await connection.device_info() == info


async def test_without_a_connect_function_it_connects_over_tcp() -> None:
    with trio.fail_after(60):
        async with open_server() as server, open_agent(server.url, DEVICE, system_info=INFO):
            assert server.devices == [DEVICE]


async def test_it_retries_until_registered_with_growing_waits(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "galaxy_trio.agent.agent")
    async with open_agent_server() as server:
        server.failing = [OSError("unreachable"), trio.BrokenResourceError("no proxy"), OSError("unreachable")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.accept)
            async with open_agent(
                PEER_URL, DEVICE, system_info=INFO, connect=server.connect, random=Longest()
            ) as agent:
                assert server.tries == [0, 1, 3, 7]
                assert agent.statistics().registrations == 1
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3
    assert "device 'device_001' could not register: cannot connect: unreachable; trying again in 1.0 s" in caplog.text


async def test_waits_are_at_most_4_s_in_the_first_30_s_of_an_outage_and_double_afterwards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_agent_server() as server:
        server.failing = [OSError("unreachable")] * 13
        with pytest.raises(ConnectFailed):
            async with open_agent(
                PEER_URL, DEVICE, system_info=INFO, connect=server.connect, random=Longest(), max_retries=12
            ):
                raise AssertionError("not reached")
        assert server.tries == [0, 1, 3, 7, 11, 15, 19, 23, 27, 31, 39, 55, 87]


async def test_first_wait_is_configurable(autojump_clock: trio.testing.MockClock) -> None:
    async with open_agent_server() as server:
        server.failing = [OSError("unreachable")] * 5
        with pytest.raises(ConnectFailed):
            async with open_agent(
                PEER_URL,
                DEVICE,
                system_info=INFO,
                connect=server.connect,
                random=Longest(),
                reconnect_delay=20,
                max_retries=3,
            ):
                raise AssertionError("not reached")
        assert server.tries == [0, 20, 40, 80]


async def test_used_up_retries_raise_the_last_error(autojump_clock: trio.testing.MockClock) -> None:
    last = ConnectFailed("the last")
    async with open_agent_server() as server:
        server.failing = [ConnectFailed("first"), last]
        with pytest.raises(ConnectFailed) as caught:
            async with open_agent(PEER_URL, DEVICE, connect=server.connect, system_info=INFO, max_retries=1):
                raise AssertionError("not reached")
        assert caught.value is last


@pytest.mark.parametrize("status_code", [401, 403])
async def test_rejected_token_is_retried_every_300_s_with_a_warning(
    status_code: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_agent_server() as server:
        server.reject_with = status_code
        with pytest.raises(HandshakeRejected):
            async with open_agent(
                PEER_URL, DEVICE, connect=server.connect, system_info=INFO, max_retries=2, token="s3cret"
            ):
                raise AssertionError("not reached")
        assert server.tries == [0, 300, 600]
    assert [record.levelname for record in caplog.records if record.name.endswith(".agent")] == ["WARNING"] * 2
    assert "s3cret" not in caplog.text


async def test_name_that_is_still_registered_is_retried_every_5_s_with_a_warning_after_60_s(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "galaxy_trio.agent.agent")
    async with open_agent_server() as server:

        async def refuse_then_accept() -> None:
            for _ in range(14):
                await server.refuse(ALREADY)
            await server.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse_then_accept)
            async with open_agent(PEER_URL, DEVICE, connect=server.connect, system_info=INFO):
                assert trio.current_time() == pytest.approx(70)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO"] * 12 + ["WARNING"] + ["INFO"]
    assert "already registered" in caplog.records[12].message


@pytest.mark.parametrize("url", ["http://example.com", "ws://user:word@example.com"])
async def test_invalid_url_is_raised_immediately(url: str) -> None:
    with trio.fail_after(60), pytest.raises(ConfigError):
        async with open_agent(url, DEVICE, system_info=INFO):
            raise AssertionError("not reached")


async def test_unaccepted_certificate_is_raised_immediately() -> None:
    error = ConnectFailed("no TLS connection")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed")
    async with open_agent_server() as server:
        server.failing = [error]
        with pytest.raises(ConnectFailed) as caught:
            async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=server.connect):
                raise AssertionError("not reached")
        assert caught.value is error
        assert len(server.tries) == 1


async def test_bug_in_connect_is_raised_unchanged() -> None:
    bug = ZeroDivisionError("mine")
    async with open_agent_server() as server:
        server.failing = [bug]
        with pytest.raises(ZeroDivisionError) as caught:
            async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=server.connect):
                raise AssertionError("not reached")
        assert caught.value is bug


async def test_hanging_connect_raises_connect_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def connect() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError("not reached")

    with pytest.raises(ConnectTimeout, match="no connection within 7 s"):
        async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=connect, connect_timeout=7, max_retries=0):
            raise AssertionError("not reached")
    assert trio.current_time() == pytest.approx(7)


async def test_system_information_above_the_message_limit_is_raised_immediately() -> None:
    async with open_agent_server() as server:
        info = DeviceInfo(DEVICE, Platform.LINUX, hostname="x" * 2000)
        with trio.fail_after(60), pytest.raises(MessageTooLarge):
            async with open_agent(PEER_URL, DEVICE, system_info=info, connect=server.connect, max_message_size=1000):
                raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"device_id": ""}, "a device_id has 1 to 1000 characters"),
        ({"max_threads": 0}, "max_threads must be above 0"),
        ({"max_queued_batches": 0}, "max_queued_batches must be above 0"),
        ({"connect_timeout": -1}, "connect_timeout must be above 0"),
        ({"heartbeat_interval": 0}, "heartbeat_interval must be above 0"),
        ({"max_message_size": 0}, "max_message_size must be above 0"),
        ({"max_retries": -1}, "max_retries must not be below 0"),
        ({"reconnect_delay": 0}, "waits must be above 0 s"),
        ({"tools": [collect_system_info] * 2}, "two tools have the name 'collect_system_info'"),
        ({"system_info": DeviceInfo(DEVICE, "linux", hostname="\ud800")}, "the system_info cannot be sent: a lone surrog"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_invalid_arguments_raise_config_error(arguments: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"device_id": DEVICE, "system_info": INFO, **arguments}
    async with open_agent_server() as server:
        with trio.fail_after(60), pytest.raises(ConfigError, match=said):
            async with open_agent(PEER_URL, connect=server.connect, **given):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                raise AssertionError("not reached")


async def test_cancelling_the_wait_before_a_retry_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_agent_server() as server:
        server.failing = [OSError("unreachable")] * 100
        with trio.move_on_after(50) as scope:
            async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=server.connect):
                raise AssertionError("not reached")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(50)


async def test_repr_names_the_device_and_shows_no_token() -> None:
    async with open_commanded_agent(token="s3cret", headers=[("X-Key", "s3cret")]) as (_, agent, _):
        assert repr(agent) == "<Agent 'device_001'>"
        assert "s3cret" not in str(vars(agent))
    assert repr(agent) == "<Agent 'device_001', not registered>"


# ---- staying registered


async def test_headers_and_token_are_sent_at_every_try(autojump_clock: trio.testing.MockClock) -> None:
    headers = iter([("X-Rack", "7")])
    async with open_commanded_agent(headers=headers, token="s3cret") as (peer, _, server):
        peer.reset()
        again, _ = await server.accept()
        for each in (peer, again):
            assert (b"x-rack", b"7") in each.headers
            assert each.path == "/ws?token=s3cret"


async def test_token_function_is_called_for_each_try() -> None:
    tokens = iter(["old", None, "n3w"])

    def read() -> str | None:
        token = next(tokens)
        if token is None:
            raise ConfigError("the token file is being replaced")
        return token

    async with open_agent_server() as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stay_registered, server, read)
            peer = await server.next_peer()
            await peer.receive()
            assert peer.path == "/ws?token=old"
            peer.reset()
            peer, _ = await server.accept()
            assert peer.path == "/ws?token=n3w"
            nursery.cancel_scope.cancel()


async def test_slow_token_function_raises_connect_timeout() -> None:
    hanging = threading.Event()

    def read() -> str:
        hanging.wait()
        return "late"

    async with open_agent_server() as server:
        with trio.fail_after(60), pytest.raises(ConnectTimeout, match=r"the token could not be read within 0\.01 s"):
            async with open_agent(
                PEER_URL,
                DEVICE,
                connect=server.connect,
                system_info=INFO,
                token=read,
                connect_timeout=0.01,
                max_retries=0,
            ):
                raise AssertionError("not reached")
        hanging.set()


async def _stay_registered(server: AgentServer, token: Callable[[], str | None]) -> None:
    async with open_agent(
        PEER_URL, DEVICE, connect=server.connect, system_info=INFO, token=token, reconnect_delay=0.001
    ):
        await trio.sleep_forever()


async def test_it_sends_heartbeats_and_notices_a_silent_server(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent(heartbeat_interval=10, liveness_timeout=25) as (peer, agent, server):
        beat = await peer.receive()
        assert (beat.type, beat.client_type) == (ClientMessageType.HEARTBEAT, ClientType.DEVICE)
        assert trio.current_time() == pytest.approx(10)
        peer.confirm()
        await trio.testing.wait_all_tasks_blocked()
        peer.go_silent()
        await server.accept()
        # Silent from 10 s on for 25 s, and 1 s until the next try.
        assert server.tries[1] == pytest.approx(36)
        await agent.wait_registered()
        assert agent.statistics().registrations == 2


async def test_lost_connection_is_replaced_while_the_block_runs(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "galaxy_trio.agent.agent")
    async with open_commanded_agent() as (peer, agent, server):
        peer.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert (agent.registered, agent.statistics().registered) == (False, False)
        waiting = trio.Event()

        async def wait() -> None:
            await agent.wait_registered()
            waiting.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            again, registration = await server.accept()
            assert registration.type is ClientMessageType.REGISTER
            with trio.fail_after(1):
                await waiting.wait()
        assert agent.registered
        # A second loss, soon after: it waits longer.
        await again.close(1001, "restarting")
        await server.accept()
        assert server.tries == [0, 1, 3]
        await agent.wait_registered()
        assert agent.statistics().registrations == 3
    assert "device 'device_001' lost its connection: " in caplog.text


async def test_connection_that_lived_60_s_resets_the_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent(heartbeat_interval=1000, liveness_timeout=1000) as (peer, _, server):
        peers = [peer]
        for _ in range(3):
            peers[-1].reset()
            peers.append((await server.accept())[0])
        assert server.tries == [0, 1, 3, 7]
        await trio.sleep(60)
        peers[-1].reset()
        await server.accept()
        assert server.tries[-1] == pytest.approx(68)


async def test_each_registration_sends_current_system_information(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    names = iter(["before", "after"])

    async def collect(device_id: str) -> DeviceInfo:
        await trio.lowlevel.checkpoint()
        return DeviceInfo(device_id, Platform.LINUX, hostname=next(names))

    monkeypatch.setattr("galaxy_trio.agent.agent.collect_system_info", collect)
    async with open_commanded_agent(system_info=None) as (peer, _, server):
        peer.reset()
        _, registration = await server.accept()
        assert registration.metadata is not None
        info = cast("dict[str, object]", registration.metadata["system_info"])
        assert info["hostname"] == "after"


async def test_giving_up_cancels_the_block_and_raises_the_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    error = ConnectFailed("no TLS connection")
    error.__cause__ = ssl.SSLCertVerificationError("expired")
    cancelled = False
    with pytest.raises(ConnectFailed) as caught:
        async with open_commanded_agent() as (peer, _, server):
            server.failing = [error]
            peer.reset()
            try:
                await trio.sleep(1000)
            except trio.Cancelled:
                cancelled = True
                raise
    assert caught.value is error
    assert cancelled
    assert trio.current_time() == pytest.approx(1)


async def test_loss_with_retries_used_up_is_raised_from_the_block() -> None:
    with trio.fail_after(60), pytest.raises(ConnectionLost, match="'device_001' was lost"):
        async with open_commanded_agent(max_retries=0) as (peer, _, _):
            peer.reset()
            await trio.sleep_forever()


async def test_exception_of_the_block_and_the_agents_error_come_out_as_one_group() -> None:
    with trio.fail_after(60), pytest.raises(BaseExceptionGroup) as caught:
        async with open_commanded_agent(max_retries=0) as (peer, _, _):
            peer.reset()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")
    assert {type(error) for error in caught.value.exceptions} == {ValueError, ConnectionLost}


async def test_waiting_for_a_registration_after_the_block_raises_closed() -> None:
    async with open_commanded_agent() as (_, agent, _):
        pass
    with pytest.raises(trio.ClosedResourceError, match="the agent 'device_001' was closed"):
        await agent.wait_registered()


async def test_end_of_the_agent_wakes_tasks_that_wait_for_a_registration(autojump_clock: trio.testing.MockClock) -> None:
    told: list[Exception] = []

    async def wait(agent: Agent) -> None:
        try:
            await agent.wait_registered()
        except trio.ClosedResourceError as error:
            told.append(error)

    async with trio.open_nursery() as nursery:
        async with open_commanded_agent() as (peer, agent, server):
            server.failing = [OSError("unreachable")] * 100
            peer.reset()
            await trio.sleep(5)
            nursery.start_soon(wait, agent)
            await trio.testing.wait_all_tasks_blocked()
    assert len(told) == 1


# ---- its end


async def test_leaving_the_block_closes_with_a_close_handshake() -> None:
    async with open_commanded_agent() as (peer, agent, _):
        pass
    assert (await peer.wait_ended()).code == 1000
    assert peer.stream.closed
    assert not agent.registered


async def test_exception_of_the_block_comes_out_unchanged_after_a_close_handshake() -> None:
    error = ValueError("mine")
    async with open_memory_server() as server:
        streams: list[FaultyStream] = []

        async def connect() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            streams.append(FaultyStream(server.connect()))
            return streams[-1]

        with pytest.raises(ValueError, match="mine") as caught:
            async with open_agent(server.url, DEVICE, system_info=INFO, connect=connect):
                raise error
        assert caught.value is error
        assert [stream.closed for stream in streams] == [True]


async def test_cancelling_the_block_closes_immediately(autojump_clock: trio.testing.MockClock) -> None:
    async with open_agent_server() as server:
        peers: list[ScriptedPeer] = []

        async def accept() -> None:
            peers.append((await server.accept())[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            with trio.CancelScope() as scope:
                async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=server.connect):
                    peers[0].stream.stall()
                    scope.cancel()
                    await trio.sleep_forever()
            assert scope.cancelled_caught
        assert trio.current_time() == 0
        assert (await peers[0].wait_ended()).code == 1006


async def test_close_handshake_is_bounded_by_3_s(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent() as (peer, _, _):
        peer.go_silent()
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(3)


async def test_block_can_be_left_during_the_wait_before_a_retry(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent() as (peer, _, server):
        server.failing = [OSError("unreachable")] * 100
        peer.reset()
        await trio.sleep(40)
        ended = trio.current_time()
    assert trio.current_time() == ended


async def test_block_can_be_left_during_a_registration(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent() as (peer, _, server):
        peer.reset()
        again = await server.next_peer()
        await again.receive()
        ended = trio.current_time()
    assert trio.current_time() == ended
    assert (await again.wait_ended()).code == 1006


async def test_loss_in_the_step_in_which_the_block_ends_causes_no_reconnect(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_commanded_agent() as (_, agent, server):
        connection = agent._connection
        assert connection is not None
        connection._link.lose("in this very step")
        assert not agent.registered
    assert len(server.tries) == 1
    assert trio.current_time() == 0


# ---- tasks that the server dispatches


async def test_dispatched_task_is_submitted_as_the_devices_own() -> None:
    async with open_commanded_agent() as (peer, _, _):
        peer.send_json(
            {"type": "task", "status": "ok", "user_request": "open x", "task_name": "t", "session_id": "s", "response_id": "r"}
        )  # fmt: skip
        sent = json.loads(await peer.receive_text())
        assert sent.pop("timestamp")
        assert sent == {
            "type": "task",
            "status": "continue",
            "client_type": "device",
            "client_id": DEVICE,
            "target_id": DEVICE,
            "request": "open x",
            "session_id": "s",
            "task_name": "t",
        }


async def test_dispatched_task_runs_on_the_server_that_dispatched_it() -> None:
    asked: list[str] = []
    ended = trio.Event()

    async def session(task: ServerTask) -> str:
        await trio.lowlevel.checkpoint()
        asked.append(task.request)
        ended.set()
        return "done"

    async with open_memory_server(session=session) as server:
        async with open_agent(server.url, DEVICE, system_info=INFO, connect=_to(server)) as agent:
            agent._received(
                ServerMessage(ServerMessageType.TASK, TaskStatus.OK, user_request="open x", session_id="s7"),
            )
            with trio.fail_after(60):
                await ended.wait()
            assert agent.registered
    assert asked == ["open x"]


async def test_dispatched_task_too_large_to_submit_is_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_commanded_agent(max_message_size=1000) as (peer, agent, _):
        peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 900, "session_id": "s"})
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert agent.registered
    assert "a reply was dropped: a message of " in caplog.text


async def test_messages_that_are_not_for_devices_are_ignored() -> None:
    async with open_commanded_agent() as (peer, agent, _):
        peer.send(ServerMessageType.DEVICE_INFO_RESPONSE)
        peer.send(ServerMessageType.DEVICE_INFO_REQUEST)
        peer.send(ServerMessageType.TASK_END)
        peer.send_text("{not json")
        peer.refuse("not now")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert agent.registered


async def test_at_most_100_replies_are_queued_for_a_server_that_does_not_read(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_commanded_agent() as (peer, agent, _):
        connection = agent._connection
        assert connection is not None
        peer.stream.stall()
        for _ in range(150):
            peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 2**19, "session_id": "s"})
        await trio.testing.wait_all_tasks_blocked()
        assert connection._link.bytes_held < 2**21
        assert "the server does not read: 100 replies are queued already, one was dropped" in caplog.text
        # It has read them all, and sends what it has kept: 100 that waited, and those in the buffer.
        peer.stream.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert 100 < len(peer.received_nowait()) < 110
        assert agent.registered


async def test_queued_replies_are_dropped_with_their_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_commanded_agent() as (peer, agent, server):
        peer.stream.stall()
        for _ in range(10):
            peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 2**19, "session_id": "s"})
        await trio.testing.wait_all_tasks_blocked()
        peer.reset()
        again, _ = await server.accept()
        await trio.testing.wait_all_tasks_blocked()
        assert again.received_nowait() == []
        assert agent.registered


async def test_commands_before_a_refused_registration_are_not_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runs: list[int] = []

    @tool
    async def run() -> None:
        await trio.lowlevel.checkpoint()
        runs.append(1)

    async with open_agent_server() as server:

        async def command_then_refuse() -> None:
            peer = await server.next_peer()
            await peer.receive()
            send_batch(peer, call("run"))
            peer.refuse("Target device is not connected")
            await server.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(command_then_refuse)
            async with open_agent(PEER_URL, DEVICE, [run], system_info=INFO, connect=server.connect) as agent:
                await trio.testing.wait_all_tasks_blocked()
                assert agent.statistics().queued_batches == 0
    assert runs == []


async def test_other_refusals_are_raised_in_the_servers_words_once_retries_are_used_up() -> None:
    async with open_agent_server() as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.refuse, "not here")
        with pytest.raises(RegistrationRejected) as caught:
            async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=server.connect, max_retries=0):
                raise AssertionError("not reached")
        assert caught.value.words == "not here"
