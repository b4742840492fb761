"""The end of a busy server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.plain_clients import (
    Ends,
    register_plain_constellation,
    register_plain_device,
    run_forever,
    stay_until_closed,
    submit_plain,
)

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask
    from tests.server.support.raw_client import RawClient


async def test_accepted_client_is_notified_at_any_step_of_the_servers_stop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    received: set[tuple[object, ...]] = set()
    for steps in range(40):
        ends: Ends = []
        async with trio.open_nursery() as nursery, open_memory_server(session=run_forever) as server:
            await nursery.start(partial(stay_until_closed, server.connect(), register_plain_device, []))
            client: RawClient = await nursery.start(
                partial(stay_until_closed, server.connect(), register_plain_constellation, ends)
            )
            submit_plain(client, "s1")
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await server.stop()
        [(messages, code)] = ends
        assert code == 1001
        received.add(tuple(message["type"] for message in messages))
    assert received <= {(), ("error",), ("heartbeat", "task_end")}
    assert ("heartbeat", "task_end") in received


async def test_no_task_is_accepted_while_the_server_stops(autojump_clock: trio.testing.MockClock) -> None:
    async def session(task: ServerTask) -> object:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)

    ends: Ends = []
    async with trio.open_nursery() as nursery:

        async def submit_late(client: RawClient) -> None:
            await trio.sleep(0.2)
            submit_plain(client, "s2")

        async with open_memory_server(session=session) as server:
            await nursery.start(partial(stay_until_closed, server.connect(), register_plain_device, []))
            client: RawClient = await nursery.start(
                partial(stay_until_closed, server.connect(), register_plain_constellation, ends)
            )
            submit_plain(client, "s1")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(submit_late, client)
    [(messages, code)] = ends
    assert code == 1001
    assert [message["type"] for message in messages] == ["heartbeat", "task_end", "error"]


async def test_client_that_does_not_read_does_not_prevent_the_others_close_handshakes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> object:
        return "x" * HIGH_WATER_MARK

    ends: Ends = []
    async with trio.open_nursery() as nursery:
        client_end, server_end = trio.testing.memory_stream_pair()
        not_read = FaultyStream(server_end)
        async with open_memory_server(session=session) as server:
            nursery.start_soon(server.serve_stream, not_read)
            await nursery.start(partial(stay_until_closed, server.connect(), register_plain_device, ends))
            bad: RawClient = await nursery.start(
                partial(stay_until_closed, client_end, register_plain_constellation, [])
            )
            not_read.stall()
            for number in range(3):
                submit_plain(bad, f"s{number}")
            await trio.testing.wait_all_tasks_blocked()
    [(_, code)] = ends
    assert code == 1001


async def test_socket_in_its_handshake_does_not_delay_the_stop(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server() as server:
        server.connect()
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert trio.current_time() - start < 1
