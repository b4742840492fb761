"""The memory that peers can make a server take, at its default limits. The server is a process of its own."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import psutil
import trio

from .processes import running_server
from .report import Target, at_most, print_table

if TYPE_CHECKING:
    from .effort import Effort

_MB: Final = 2**20
_HANDSHAKE: Final = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_SECONDS: Final = 12.0
"""How long each attack lasts: the server closes connections that make no progress after 5 s."""
_WANTED: Final = 2 * 1024
"""MiB that no attack may exceed: the budget of 1 GiB, and what is being decoded."""


class Attack(NamedTuple):
    """Peers that send what they can."""

    what: str
    peers: int
    registered: bool
    content: bytes
    """Sent again and again, as the content of one message."""
    size: int
    """Bytes of the message. It is never completed, unless all of it is sent."""
    complete: bool = False


_ATTACKS: Final = (
    Attack("500 unregistered peers, 64 KiB each", 500, False, b" ", 64 * 1024),
    Attack("500 unregistered peers, 100 MiB each", 500, False, b" ", 100 * _MB),
    Attack("50 devices, an incomplete message of 99 MiB each", 50, True, b" ", 100 * _MB),
    Attack("50 devices, the same with letters of 4 bytes", 50, True, b" " * 1000 + "😀".encode(), 100 * _MB),
    Attack("50 devices, messages of 10 MiB full of empty lists", 50, True, b"[],", 10 * _MB, complete=True),
    Attack("50 devices, messages of 1 MiB full of empty lists", 50, True, b"[],", _MB, complete=True),
)


def _frame(size: int) -> bytes:
    """The header of a text frame, whose mask changes nothing."""
    length = struct.pack("!BH", 0xFE, size) if size < 2**16 else struct.pack("!BQ", 0xFF, size)
    return b"\x81" + length + bytes(4)


async def _attack(url: str, attack: Attack, number: int) -> None:
    target = urlsplit(url)
    stream = await trio.open_tcp_stream(target.hostname or "", target.port or 0)
    async with stream:
        await stream.send_all(_HANDSHAKE.format(host=target.netloc).encode())
        await stream.receive_some(1000)
        if attack.registered:
            info = {"device_id": f"d{number}", "platform": "linux"}
            members = {"type": "register", "status": "ok", "client_id": f"d{number}", "metadata": {"system_info": info}}
            registration = json.dumps(members).encode()
            await stream.send_all(_frame(len(registration)) + registration)
            await stream.receive_some(1000)
        opening = b'{"type":"heartbeat","status":"ok","metadata":{"x":['
        closing = b"1]}}"
        filling = attack.content * (_MB // 4 // len(attack.content) + 1)
        while True:
            await stream.send_all(_frame(attack.size) + opening)
            left = attack.size - len(opening) - len(closing)
            while left > 0:
                part = filling[: min(left, len(filling)) // len(attack.content) * len(attack.content)]
                await stream.send_all(part or b" " * left)
                left -= len(part) or left
            if not attack.complete:
                await trio.sleep_forever()
            await stream.send_all(closing)


async def _run(url: str, pid: int, attack: Attack) -> float:
    server = psutil.Process(pid)
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, server.memory_info().rss)
            await trio.sleep(0.02)

    async def run_one(number: int) -> None:
        with suppress(trio.BrokenResourceError):
            await _attack(url, attack, number)

    with trio.move_on_after(_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for number in range(attack.peers):
                nursery.start_soon(run_one, number)
    return peak / _MB


def bench_memory(effort: Effort) -> list[Target]:
    """The highest memory of the server's process during each attack."""
    del effort
    print("\n## Memory of a server under attack, at its default limits")
    rows: list[tuple[str, str]] = []
    targets: list[Target] = []
    for attack in _ATTACKS:
        with running_server("fleet_server") as server:
            peak = trio.run(_run, server.url, server.pid, attack)
        rows.append((attack.what, f"{peak:,.0f}"))
        targets.append(at_most(f"{attack.what}: memory, MiB", _WANTED, peak))
    print_table(("attack", "MiB at most"), rows)
    return targets
