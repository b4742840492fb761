import trio

from galaxy_trio import open_constellation


async def main() -> None:
    async with (
        open_constellation("devices.toml") as constellation,
        constellation.reserve(capabilities={"camera"}) as reservation,
    ):
        # Nothing has been sent yet, and no other task runs between these two.
        for name in ("Ada", "Bob"):
            result = await reservation.run_task(f'greet {{"name": "{name}"}}')
            print(result.device_id, result.unwrap())


trio.run(main)
