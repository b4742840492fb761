import trio

from galaxy_trio import Connection, open_connection


async def open_window(connection: Connection, title: str) -> None:
    result = await connection.run_task(f'open_window {{"title": "{title}", "seconds": 0.2}}')
    print(result.unwrap())


async def main() -> None:
    async with open_connection("ws://127.0.0.1:5000/ws", "laptop") as connection:
        async with trio.open_nursery() as nursery:
            for title in ("Notepad", "Calculator", "Terminal"):
                nursery.start_soon(open_window, connection, title)
            info = await connection.device_info()
            print(f"{info.device_id} answers while the tasks run")
        print("all three tasks have ended")


trio.run(main)
