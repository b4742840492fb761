import trio

from galaxy_trio import open_connection


async def main() -> None:
    async with open_connection("ws://127.0.0.1:5000/ws", "device_001") as connection:
        info = await connection.device_info(timeout=10)
        print(f"{info.hostname}: {info.platform}, {info.cpu_count} cores")

        async with trio.open_nursery() as nursery:  # any number at once
            for window in ("Notepad", "Calculator"):
                nursery.start_soon(connection.run_task, f"Open {window}")

        result = await connection.run_task("Close all windows", timeout=1000)
        print(result.unwrap())  # or TaskFailed


trio.run(main)
