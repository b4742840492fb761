"""Two exclusive constellations of one name: the server lets only one of them keep a device connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.testing.memory_fleet import open_memory_fleet

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_the_second_constellation_is_refused_until_the_first_has_ended(autojump_clock: MockClock) -> None:
    async with open_memory_fleet("a") as fleet:
        await fleet.wait_registered()
        async with open_constellation(
            fleet.configs, client_name="house", exclusive=True, connect=fleet.connect
        ) as first:
            await first.wait_connected()
            async with open_constellation(
                fleet.configs, client_name="house", exclusive=True, connect=fleet.connect
            ) as second:
                with trio.move_on_after(60):
                    await second.wait_connected()
                assert not second.devices["a"].connected
                assert "'house@a' is already registered" in str(second.devices["a"].statistics().problem)
                assert first.devices["a"].connected
                assert (await first.run_task("still here")).task_id
                await first.devices["a"].disconnect()
                await second.wait_connected()


async def test_the_connections_of_its_tasks_have_fresh_names(autojump_clock: MockClock) -> None:
    with trio.fail_after(1_000):
        async with open_memory_fleet("a") as fleet:
            await fleet.wait_registered()
            async with open_constellation(
                fleet.configs, client_name="house", exclusive=True, connect=fleet.connect
            ) as first:
                await first.wait_connected()
                # An idle connection of its last task is still registered when another owner runs one.
                await first.run_task("one")
                async with open_constellation(
                    fleet.configs, client_name="house", exclusive=True, connect=fleet.connect
                ) as second:
                    await first.devices["a"].disconnect()
                    await second.wait_connected()
                    assert (await second.run_task("two")).task_id
