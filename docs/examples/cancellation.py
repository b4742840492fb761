import trio

from galaxy_trio import DeviceConfig, open_constellation

LAPTOP = DeviceConfig("laptop", "ws://127.0.0.1:5000/ws")


async def main() -> None:
    async with open_constellation([LAPTOP]) as constellation:
        laptop = constellation.devices["laptop"]
        with trio.move_on_after(1) as limit:
            await laptop.run_task('open_window {"title": "Mail", "seconds": 60}')
        if limit.cancelled_caught:
            print("cancelled")


trio.run(main)
