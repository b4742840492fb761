"""An application that takes jobs from a channel and runs each as a task on a device."""

from collections.abc import AsyncIterable

import trio

from galaxy_trio import Constellation, DeviceConfig, GalaxyError, open_constellation

DEVICES = [DeviceConfig("laptop", "ws://127.0.0.1:5000/ws", max_concurrent_tasks=2)]


async def work(constellation: Constellation, jobs: AsyncIterable[str]) -> None:
    async for title in jobs:
        try:
            result = await constellation.run_task(f'open_window {{"title": "{title}", "seconds": 0.1}}', timeout=30)
        except GalaxyError as error:  # refused, timed out or lost: only this job fails
            print(f"{title}: {error}")
        else:
            print(f"{title}: {result.result or result.error}")


async def main() -> None:
    async with open_constellation(DEVICES, drain=5) as constellation, trio.open_nursery() as nursery:
        sending, receiving = trio.open_memory_channel[str](100)  # when it is full, send() waits
        async with sending, receiving:
            for _ in range(2):
                nursery.start_soon(work, constellation, receiving.clone())
            for title in ("Notepad", "Paint", "Calculator"):
                await sending.send(title)


trio.run(main)
