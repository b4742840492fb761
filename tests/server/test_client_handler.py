"""The server's replies to registrations and other messages."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio import RequestRejected, open_connection
from galaxy_trio.server import ServerLimits, ServerStatistics
from galaxy_trio.testing import open_memory_server
from tests.connection.support.recordings import text_frames
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    RecordingSessions,
    end_of,
    error_text,
    open_clients,
    register,
    register_constellation,
    request_information,
    run_forever,
    start_task,
    submit,
)
from tests.server.support.raw_client import Members, open_raw_client


async def test_session_id_in_use_is_refused_until_its_session_has_ended() -> None:
    sessions = RecordingSessions()
    async with open_clients(sessions.run) as clients, open_raw_client(clients.server.connect()) as rival:
        await register_constellation(rival, "rival")
        await start_task(clients.constellation, "s1")
        submit(clients.constellation, "s1", "another")
        assert error_text(await clients.constellation.receive()) == "session_id 's1' is in use"
        submit(rival, "s1")
        assert error_text(await rival.receive()) == "session_id 's1' is owned by another client"
        sessions.released.set()
        assert await end_of(clients.constellation, "s1") == ("completed", "released", None)
        assert await end_of(clients.device, "s1") == ("completed", "released", None)
        await start_task(rival, "s1")
        assert await end_of(rival, "s1") == ("completed", "released", None)


async def test_first_replies_are_in_the_order_of_the_messages() -> None:
    async with open_clients(run_forever) as clients:
        constellation = clients.constellation
        for number in range(50):
            constellation.send_text("no JSON")
            constellation.send(type="heartbeat", status="ok", client_type="constellation")
            submit(constellation, f"s{number}")
            submit(constellation, f"s{number}", target="device_404")
            request_information(constellation, f"q{number}")
        for number in range(50):
            assert "not JSON" in error_text(await constellation.receive())
            assert "session_id" not in await constellation.receive()
            assert (await constellation.receive())["session_id"] == f"s{number}"
            assert "'device_404'" in error_text(await constellation.receive())
            assert (await constellation.receive())["response_id"] == f"q{number}"


NO_REGISTRATION = "the first message must be a registration with a client_id"

FIRST_MESSAGES = {
    "a heartbeat": (text_frames("registration_errors")[4].text, NO_REGISTRATION),
    "a task": (text_frames("task_completed")[0].text, NO_REGISTRATION),
    "a registration without a name": ('{"type": "register", "status": "ok"}', NO_REGISTRATION),
    "a registration with an empty name": ('{"type": "register", "status": "ok", "client_id": ""}', NO_REGISTRATION),
    "no JSON": ("{not json", "invalid message to the server: not JSON"),
    "no message": ("[]", "invalid message to the server: expected an object"),
}


@pytest.mark.parametrize(("text", "words"), FIRST_MESSAGES.values(), ids=FIRST_MESSAGES)
async def test_first_message_that_is_not_a_registration_is_refused_and_closed_with_1008(text: str, words: str) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        client.send_text(text)
        [error], code = await client.receive_until_ended()
        assert error_text(error).startswith(words)
        assert code == 1008
        assert server.devices == []


@pytest.mark.parametrize(
    "text",
    ["{not json", '{"type": "register", "status": "ok", "client_id": "device_001"}'],
    ids=["broken", "a registration"],
)
async def test_messages_after_a_refused_registration_are_not_answered(text: str) -> None:
    async with open_memory_server() as server:
        # Repeated, because it is random whether the server reads on or closes first.
        for _ in range(30):
            async with open_raw_client(server.connect()) as client:
                client.send_text('{"type": "register", "status": "ok"}')
                client.send_text(text)
                messages, code = await client.receive_until_ended()
                assert [message["type"] for message in messages] == ["error"]
                assert code == 1008
                assert server.devices == []


async def test_unregistered_client_is_closed_with_1008_at_the_register_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = ServerLimits(register_timeout=7)
    async with open_memory_server(limits=limits) as server, open_raw_client(server.connect()) as client:
        await client.silence(6.9)
        assert await client.close_code() == 1008
        assert trio.current_time() == pytest.approx(7, abs=0.2)


async def test_registered_client_may_be_silent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_clients(limits=ServerLimits(register_timeout=7)) as clients:
        await clients.constellation.silence(100)
        await clients.check()


async def test_device_without_system_information_has_no_information() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        await register(device, client_id=DEVICE)
        async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
            with pytest.raises(RequestRejected) as caught:
                await connection.device_info()
        assert caught.value.words == "Device device_001 not found or no system info available"


@pytest.mark.parametrize("system_info", ["text", ["a list"], 5, None])
async def test_system_information_that_is_not_an_object_is_ignored(system_info: object) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        metadata = {"system_info": system_info, "platform": 5}
        await register(device, client_id=DEVICE, metadata=metadata)
        async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
            with pytest.raises(RequestRejected, match="no system info available"):
                await connection.device_info()


async def test_platform_in_the_system_information_takes_precedence() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        info: Members = {"device_id": DEVICE, "platform": "darwin"}
        metadata = {"platform": "linux", "system_info": info}
        await register(device, client_id=DEVICE, metadata=metadata)
        [client] = server.clients()
        assert (client.platform, client.system_info) == ("linux", info)


async def test_only_constellations_may_request_information_and_only_about_devices() -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as free:
        clients.device.send(type="device_info_request", status="ok", target_id=DEVICE, request_id="q1")
        assert "Not authorized" in error_text(await clients.device.receive())
        await register_constellation(free, "free", None)
        request_information(free, "q2", None)
        assert "Not authorized" in error_text(await free.receive())
        request_information(free, "q3", "free")
        assert "not found" in str((await free.receive())["result"])
        request_information(free, "q4")
        reply = await free.receive()
        assert (reply["response_id"], reply["status"]) == ("q4", "ok")
        assert reply["result"] == {"device_id": DEVICE, "platform": "linux"}


async def test_constellation_cannot_target_a_constellation() -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as client:
        client.send(
            type="register", status="ok", client_type="constellation", client_id="other", target_id=CONSTELLATION
        )
        [error], code = await client.receive_until_ended()
        assert error_text(error).startswith(f"Target device {CONSTELLATION!r} is not connected")
        assert code == 1000


async def test_target_of_a_device_is_ignored() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as device:
        await register(device, client_id=DEVICE, target_id="device_404")
        assert server.devices == [DEVICE]


async def test_connection_that_ends_without_a_registration_is_removed_immediately(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_server() as server, open_raw_client(server.connect()) as client:
        await client.abort()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)
        assert trio.current_time() == 0


async def test_name_is_free_again_when_its_connection_has_ended() -> None:
    async with open_clients() as clients:
        await clients.constellation.close()
        await trio.testing.wait_all_tasks_blocked()
        assert clients.server.constellations == []
        async with open_raw_client(clients.server.connect()) as again:
            await register_constellation(again)
            assert clients.server.constellations == [CONSTELLATION]
