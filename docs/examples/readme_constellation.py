import trio

from galaxy_trio import open_constellation


async def main() -> None:
    async with open_constellation("devices.toml") as constellation:
        with trio.fail_after(30):
            await constellation.wait_connected()

        result = await constellation.run_task("where_am_i", capabilities={"files"}, timeout=10)
        print(result.device_id, result.unwrap())

        with trio.move_on_after(10):  # when the time is up, the task is cancelled and stops on its device
            desktop = constellation.devices["desktop"]
            print(await desktop.run_task("list_directory"))


trio.run(main)
