import trio

from galaxy_trio import open_connection


async def main() -> None:
    async with open_connection("ws://127.0.0.1:5000/ws", "laptop") as connection:
        info = await connection.device_info(timeout=10)
        print(f"{info.device_id} runs {info.platform} on {info.cpu_count} cores")


trio.run(main)
