"""An agent's registration: retries, waits, errors that end it."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionOptions,
    ConnectTimeout,
    DeviceInfo,
    HandshakeRejected,
    MessageTooLarge,
    Platform,
    RegistrationRejected,
    open_connection,
)
from galaxy_trio.agent import collect_system_info, open_agent
from galaxy_trio.server import open_server
from galaxy_trio.testing import PEER_URL, open_memory_server
from tests.agent.support.agent_server import (
    ALREADY_REGISTERED,
    DEVICE,
    INFO,
    Longest,
    connect_to,
    open_agent_server,
    open_commanded_agent,
)


async def test_block_is_entered_once_the_device_is_registered_with_its_system_information() -> None:
    info = await collect_system_info(DEVICE)
    async with open_memory_server() as server:
        async with open_agent(server.url, DEVICE, connect=connect_to(server)) as agent:
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
        async with open_agent(server.url, DEVICE, connect=connect_to(server), system_info=info):
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
                await server.refuse(ALREADY_REGISTERED)
            await server.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse_then_accept)
            async with open_agent(PEER_URL, DEVICE, connect=server.connect, system_info=INFO):
                assert trio.current_time() == pytest.approx(70)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO"] * 12 + ["WARNING"] + ["INFO"]
    assert "already registered" in caplog.records[12].message


async def test_other_refusals_are_raised_in_the_servers_words_once_retries_are_used_up() -> None:
    async with open_agent_server() as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.refuse, "not here")
        with pytest.raises(RegistrationRejected) as caught:
            async with open_agent(PEER_URL, DEVICE, system_info=INFO, connect=server.connect, max_retries=0):
                raise AssertionError("not reached")
        assert caught.value.words == "not here"


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
        async with open_agent(
            PEER_URL,
            DEVICE,
            system_info=INFO,
            connect=connect,
            options=ConnectionOptions(connect_timeout=7),
            max_retries=0,
        ):
            raise AssertionError("not reached")
    assert trio.current_time() == pytest.approx(7)


async def test_system_information_above_the_message_limit_is_raised_immediately() -> None:
    async with open_agent_server() as server:
        info = DeviceInfo(DEVICE, Platform.LINUX, hostname="x" * 2000)
        with trio.fail_after(60), pytest.raises(MessageTooLarge):
            async with open_agent(
                PEER_URL,
                DEVICE,
                system_info=info,
                connect=server.connect,
                options=ConnectionOptions(max_message_size=1000),
            ):
                raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"device_id": ""}, "a device_id has 1 to 1000 characters"),
        ({"max_threads": 0}, "max_threads must be above 0"),
        ({"max_queued_batches": 0}, "max_queued_batches must be above 0"),
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
