"""An agent stays registered: tokens, heartbeats, reconnects, errors that end it."""

from __future__ import annotations

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
    ConnectionOptions,
    ConnectTimeout,
    DeviceInfo,
    Platform,
)
from galaxy_trio.agent import Agent, open_agent
from galaxy_trio.messages import ClientMessageType, ClientType
from galaxy_trio.testing import PEER_URL
from tests.agent.support.agent_server import DEVICE, INFO, open_agent_server, open_commanded_agent

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.agent.support.agent_server import AgentServer


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
                options=ConnectionOptions(connect_timeout=0.01),
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
    async with open_commanded_agent(options=ConnectionOptions(heartbeat_interval=10, liveness_timeout=25)) as (
        peer,
        agent,
        server,
    ):
        beat = await peer.receive()
        assert (beat.type, beat.client_type) == (ClientMessageType.HEARTBEAT, ClientType.DEVICE)
        assert trio.current_time() == pytest.approx(10)
        peer.confirm()
        await trio.testing.wait_all_tasks_blocked()
        peer.go_silent()
        await server.accept()
        # 10 s, then 25 s of silence, then 1 s until the retry.
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
        # After a second loss soon after the first, the wait is longer.
        await again.close(1001, "restarting")
        await server.accept()
        assert server.tries == [0, 1, 3]
        await agent.wait_registered()
        assert agent.statistics().registrations == 3
    assert "device 'device_001' lost its connection: " in caplog.text


async def test_connection_that_lived_60_s_resets_the_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent(options=ConnectionOptions(heartbeat_interval=1000, liveness_timeout=1000)) as (
        peer,
        _,
        server,
    ):
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


async def test_end_of_the_agent_wakes_tasks_that_wait_for_a_registration(
    autojump_clock: trio.testing.MockClock,
) -> None:
    raised: list[Exception] = []

    async def wait(agent: Agent) -> None:
        try:
            await agent.wait_registered()
        except trio.ClosedResourceError as error:
            raised.append(error)

    async with trio.open_nursery() as nursery:
        async with open_commanded_agent() as (peer, agent, server):
            server.failing = [OSError("unreachable")] * 100
            peer.reset()
            await trio.sleep(5)
            nursery.start_soon(wait, agent)
            await trio.testing.wait_all_tasks_blocked()
    assert len(raised) == 1
