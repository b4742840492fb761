import trio

from galaxy_trio import DeviceConfig, RequestTimeout, open_constellation

LAPTOP = DeviceConfig("laptop", "ws://127.0.0.1:5000/ws")


async def main() -> None:
    async with open_constellation([LAPTOP]) as constellation:
        laptop = constellation.devices["laptop"]
        try:
            await laptop.run_task('open_window {"title": "Browser", "seconds": 60}', timeout=1)
        except RequestTimeout as error:
            print("RequestTimeout:", error)
        # The task was stopped on the device, so the next one can run.
        result = await laptop.run_task('open_window {"title": "Notepad"}')
        print(result.unwrap())


trio.run(main)
