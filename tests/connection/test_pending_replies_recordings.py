"""The messages of recorded connections reach their requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from galaxy_trio._codec.codec import decode_client_message, decode_server_message
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import ClientMessageType
from tests.connection.support.recordings import NAMES, text_frames
from tests.connection.support.replies import DEVICE_INFO, REGISTRATION, TASK, ask, table

if TYPE_CHECKING:
    from galaxy_trio._connection.pending_replies import PendingReplies
    from galaxy_trio._connection.request_types import RequestKind


class RecordedConnections:
    """The connections of one side of a recording. Its requests are made again, and each message is routed on its own connection."""

    def __init__(self) -> None:
        self._connections: dict[str | None, PendingReplies] = {}
        self._sessions: dict[str, PendingReplies] = {}
        self._latest = table()
        self.routings: list[str] = []

    def send(self, text: str) -> None:
        try:
            message = decode_client_message(text)
        except InvalidMessage:
            return
        self._latest = self._connections.setdefault(message.client_id, table())
        match message.type:
            case ClientMessageType.REGISTER:
                self._ask(REGISTRATION, "")
            case ClientMessageType.DEVICE_INFO_REQUEST:
                self._ask(DEVICE_INFO, cast("str", message.request_id))
            case ClientMessageType.TASK:
                self._ask(TASK, cast("str", message.session_id))
                self._sessions.setdefault(cast("str", message.session_id), self._latest)
            case ClientMessageType.HEARTBEAT:
                self._latest.hand_over_heartbeat()
            case _:
                pass  # a device's other messages are not requests

    def _ask(self, kind: RequestKind, key: str) -> None:
        try:
            ask(self._latest, kind, key)
        except ValueError:
            self.routings.append("refused here")

    def receive(self, text: str) -> None:
        message = decode_server_message(text)
        connection = self._sessions.get(message.session_id or "", self._latest)
        self.routings.append(connection.route(message).value)


ROUTINGS: dict[tuple[str, str], list[str]] = {
    # The constellation's messages are broken, so they make no requests. The last one is a heartbeat.
    ("bad_messages", "constellation"): ["unattributed"] * 3 + ["heartbeat refused"],
    ("device_info_ok", "constellation"): ["delivered"],
    ("device_info_out_of_scope", "constellation"): ["delivered"],
    ("device_info_without_scope", "constellation"): ["delivered", "delivered"],
    ("device_lost_mid_task", "constellation"): ["delivered", "delivered"],
    ("heartbeat", "constellation"): ["delivered", "heartbeat refused"],
    ("other_messages", "constellation"): ["delivered"],
    ("other_messages", "device"): ["delivered", "refused here"] + ["unattributed"] * 3,
    ("registration_errors", "constellation"): ["delivered", "delivered"],
    ("registration_ok", "constellation"): ["delivered"],
    ("registration_ok", "device"): ["delivered"],
    ("same_session_twice", "constellation"): [
        *("delivered", "delivered"),
        *("refused here", "duplicate", "delivered", "duplicate"),
        *("delivered", "delivered", "delivered", "delivered"),
    ],
    ("same_session_twice", "device"): ["delivered"],
    ("task_completed", "constellation"): ["delivered", "delivered"],
    ("task_completed", "device"): ["unknown"],
    ("task_ended_in_error", "constellation"): ["delivered", "delivered"],
    ("task_ended_in_error", "device"): ["unknown"],
    ("task_errors", "constellation"): ["delivered"] * 3,
    ("task_failed", "constellation"): ["delivered", "delivered"],
    ("task_failed", "device"): ["unknown"],
    ("task_to_lost_device", "constellation"): ["delivered"],
    ("task_with_commands", "constellation"): ["delivered", "delivered"],
    ("task_with_commands", "device"): ["unknown", "unknown"],
    ("two_tasks_interleaved", "constellation"): ["delivered"] * 4,
    ("two_tasks_interleaved", "device"): ["unknown", "unknown"],
}


def test_every_recorded_message_of_the_server_reaches_its_request() -> None:
    routings: dict[tuple[str, str], list[str]] = {}
    for name in NAMES:
        for side in ("constellation", "device"):
            connections = RecordedConnections()
            for frame in text_frames(name):
                if frame.sender == side:
                    connections.send(frame.text)
                elif frame.receiver == side:
                    connections.receive(frame.text)
            if connections.routings:
                routings[name, side] = connections.routings
    assert routings == ROUTINGS
