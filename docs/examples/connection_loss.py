import trio

from galaxy_trio import ConnectFailed, Connection, open_connection


async def watch(connection: Connection, scope: trio.CancelScope) -> None:
    if lost := await connection.wait_closed():
        print("connection lost:", lost.reason)
        scope.cancel()


async def main() -> None:
    try:
        async with open_connection("ws://127.0.0.1:5000/ws", "laptop") as connection, trio.open_nursery() as nursery:
            nursery.start_soon(watch, connection, nursery.cancel_scope)
            info = await connection.device_info()
            print("connected to", info.device_id, flush=True)
            await trio.sleep_forever()  # the application's own work
    except ConnectFailed as error:
        print("cannot connect:", error)


trio.run(main)
