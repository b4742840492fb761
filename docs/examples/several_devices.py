import trio

from galaxy_trio import NoSuchDevice, open_constellation


async def main() -> None:
    async with open_constellation("devices.toml") as constellation:
        with trio.fail_after(30):
            await constellation.wait_connected()

        # Any suitable device: an idle one, or else the one with the shortest queue.
        result = await constellation.run_task('greet {"name": "Ada"}')
        print(result.unwrap())

        # A device with a camera.
        result = await constellation.run_task('greet {"name": "Bob"}', capabilities={"camera"})
        print(f"{result.device_id}: {result.unwrap()}")

        # A specific device.
        phone = constellation.devices["phone"]
        print(phone.status, "camera" in phone.profile.capabilities)

        try:
            await constellation.run_task("greet", capabilities={"printer"})
        except NoSuchDevice as error:
            print("NoSuchDevice:", error)


trio.run(main)
