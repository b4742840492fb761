"""Decides from the bytes that arrive whether a peer is still there. It reads first and decides then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency import suspension

if TYPE_CHECKING:
    from galaxy_trio._transport.interface import WebSocket

AFTER_SLEEP: Final = 8.0
"""Seconds for the answer to a ping after the machine was asleep: a wireless network needs a few to be back."""
_PASSES: Final = 3
"""Scheduler passes in which the receiver reads what has arrived."""


async def wait_vanished(transport: WebSocket, timeout: float) -> str:
    """Wait until the peer has vanished, as far as this side can know.

    Args:
        transport: An open WebSocket.
        timeout: Seconds without a single byte. After this process was suspended for longer, the peer gets `suspension.GRACE` seconds more.

    Returns:
        The reason: silence, or no answer to a ping after this machine was asleep.
    """
    asleep = suspension.time_asleep()
    silent_at = transport.last_received + timeout
    while silent_at > trio.current_time():
        with trio.move_on_at(silent_at) as waiting:
            asleep = await suspension.wait_machine_woken(asleep)
        granted = silent_at
        if waiting.cancelled_caught:
            granted = suspension.with_grace(silent_at)
            if granted > silent_at:
                transport.ping_nowait()
        elif await stays_silent(transport, AFTER_SLEEP):
            return f"no answer to a ping within {AFTER_SLEEP:g} s after this machine was asleep"
        await let_receiver_read()
        silent_at = max(granted, transport.last_received + timeout)
    return f"nothing was received for {timeout:g} s"


async def stays_silent(transport: WebSocket, timeout: float) -> bool:
    """Ping the peer, and return whether no byte arrives from it within `timeout` seconds.

    A peer that the ping has not left for is not silent: it may be reading a large message over a slow line.
    After this process was suspended, the peer gets `suspension.GRACE` seconds more.
    """
    # What has arrived before the ping is not an answer.
    await let_receiver_read()
    reads = transport.reads
    transport.ping_nowait()
    until = trio.current_time() + timeout
    while transport.reads == reads and until > trio.current_time():
        with trio.move_on_at(until):
            await transport.wait_received()
            break
        until = suspension.with_grace(until)
    await let_receiver_read()
    return transport.reads == reads and not transport.bytes_held


async def let_receiver_read() -> None:
    """Let the receiver read what has arrived: the silence of a process that did not read is not its peer's."""
    for _ in range(_PASSES):
        await trio.lowlevel.checkpoint()
