import trio

from galaxy_trio import NoSuchDevice, open_constellation


async def main() -> None:
    async with open_constellation("devices.toml") as constellation:
        with trio.fail_after(30):
            await constellation.wait_connected()

        # Whichever device fits: idle before busy, then the shortest queue.
        result = await constellation.run_task('greet {"name": "Ada"}')
        print(result.unwrap())

        # One that can take pictures.
        result = await constellation.run_task('greet {"name": "Bob"}', capabilities={"camera"})
        print(f"{result.device_id}: {result.unwrap()}")

        # This one.
        phone = constellation.devices["phone"]
        print(phone.status, "camera" in phone.profile.capabilities)

        try:
            await constellation.run_task("anything", capabilities={"printer"})
        except NoSuchDevice as error:
            print("NoSuchDevice:", error)


trio.run(main)
