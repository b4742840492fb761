import trio

from galaxy_trio import open_connection


async def main() -> None:
    async with open_connection("ws://127.0.0.1:5000/ws", "laptop") as connection:
        info = await connection.device_info(timeout=10)
        print(f"{info.device_id}: {info.platform}, {info.cpu_count} cores")

        async def add(a: int, b: int) -> None:
            result = await connection.run_task(f'add {{"a": {a}, "b": {b}}}', timeout=10)
            print(a, "+", b, "=", result.unwrap())  # unwrap raises TaskFailed if the task failed

        async with trio.open_nursery() as nursery:  # both tasks run concurrently on one connection
            nursery.start_soon(add, 1, 2)
            nursery.start_soon(add, 3, 4)


trio.run(main)
