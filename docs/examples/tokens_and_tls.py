import ssl
from pathlib import Path

import trio

from galaxy_trio import open_connection

TOKEN = Path("galaxy.token").read_text("utf-8").strip()
# Not needed if the system trusts the authority that issued the server's certificate.
OWN_AUTHORITY = ssl.create_default_context(cafile="authority.pem")


async def main() -> None:
    async with open_connection(
        "wss://localhost:5000/ws", "laptop", token=TOKEN, ssl_context=OWN_AUTHORITY
    ) as connection:
        print(connection.device_id, "is connected")


trio.run(main)
