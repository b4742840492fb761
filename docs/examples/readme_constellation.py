import trio

from galaxy_trio import open_constellation


async def main() -> None:
    async with open_constellation("devices.toml") as constellation:  # or the original's devices.yaml
        await constellation.wait_connected()

        result = await constellation.run_task("List /tmp", os="linux", capabilities={"server"})
        print(result.device_id, result.unwrap())

        with trio.move_on_after(60):  # cancelling a task stops it
            print(await constellation.devices["device_001"].run_task("Open Notepad"))


trio.run(main)
