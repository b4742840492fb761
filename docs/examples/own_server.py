"""A server with its own session function, which decides what a request means."""

import trio

from galaxy_trio import TaskFailed
from galaxy_trio.messages import Command, ResultStatus, ToolType
from galaxy_trio.server import ServerTask, open_server


async def session(task: ServerTask) -> object:
    [result] = await task.execute([Command("greet", ToolType.ACTION, {"name": task.request})])
    if result.status is not ResultStatus.SUCCESS:
        raise TaskFailed(result.error or "the device gave no reason")
    return result.result


async def main() -> None:
    async with open_server("127.0.0.1", 5000, session=session) as server:
        print(server.url, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
