"""A link before and after its block."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio._codec.codec import decode_server_message, encode
from galaxy_trio._connection.link import Link
from galaxy_trio._transport.url import parse_url
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.messages import ClientMessage, ClientMessageType, TaskStatus
from galaxy_trio.testing import PEER_URL, open_bare_peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.errors import InvalidMessage
    from galaxy_trio.messages import ServerMessage

_HEARTBEAT = ClientMessage(ClientMessageType.HEARTBEAT, TaskStatus.OK)


class IgnoringReceiver:
    """A receiver that ignores everything."""

    def received(self, message: ServerMessage) -> None:
        """Ignore it."""

    def received_invalid(self, invalid: InvalidMessage) -> None:
        """Ignore it."""

    def ended(self, error: Callable[[], Exception]) -> None:
        """Ignore it."""


async def test_send_nowait_after_the_end_is_dropped_and_not_counted() -> None:
    async with open_bare_peer() as peer:
        transport = TrioWebSocket(peer.stream, peer="the peer", client=True, max_message_size=1000)
        link = Link(transport, IgnoringReceiver(), encode, decode_server_message, peer="the peer", max_values=1000)
        handshake = partial(transport.run_client, parse_url(PEER_URL), [])
        async with link.running(handshake, handshake_deadline=trio.current_time() + 5, liveness_timeout=100):
            link.send_nowait(_HEARTBEAT)
            assert (await peer.receive()).type is ClientMessageType.HEARTBEAT
        link.send_nowait(_HEARTBEAT)
        assert link.messages_sent == 1
        assert (await peer.wait_ended()).code == 1000


async def test_a_link_has_background_tasks_only_while_it_runs() -> None:
    client_end, _ = trio.testing.memory_stream_pair()
    transport = TrioWebSocket(client_end, peer="the peer", client=True, max_message_size=1000)
    link = Link(transport, IgnoringReceiver(), encode, decode_server_message, peer="the peer", max_values=1000)
    with pytest.raises(RuntimeError, match="only while it runs"):
        link.start_soon(trio.sleep_forever)
