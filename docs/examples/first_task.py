import trio

from galaxy_trio import TaskFailed, open_connection


async def main() -> None:
    async with open_connection("ws://127.0.0.1:5000/ws", "laptop") as connection:
        result = await connection.run_task('greet {"name": "Ada"}')
        print(result.status, result.result)

        result = await connection.run_task('open_window {"title": "Paint"}')
        print(result.status, result.error)
        try:
            result.unwrap()
        except TaskFailed as error:
            print("TaskFailed:", error)


trio.run(main)
