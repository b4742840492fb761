import trio

from galaxy_trio import Constellation, open_constellation
from galaxy_trio.events import DeviceConnected, DeviceDisconnected, EventsLost, TaskEnded


async def watch(constellation: Constellation, *, task_status: trio.TaskStatus[None]) -> None:
    async with constellation.subscribe() as events:
        task_status.started()
        async for event in events:  # until the constellation is closed
            match event:
                case DeviceConnected():
                    print(f"{event.device_id} connected")
                case DeviceDisconnected():
                    print(f"{event.device_id} disconnected: {event.reason}; next attempt: {event.next_try}")
                case TaskEnded():
                    print(f"task on {event.device_id} ended: {event.outcome}")
                case EventsLost():
                    print(f"{event.count} events lost")
                case _:
                    pass


async def main() -> None:
    async with trio.open_nursery() as nursery, open_constellation("devices.toml") as constellation:
        await nursery.start(watch, constellation)
        await constellation.wait_connected()
        await constellation.devices["phone"].run_task('greet {"name": "Ada"}')


trio.run(main)
