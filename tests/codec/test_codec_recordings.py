"""The messages that a real server and its peers sent are read and written."""

from __future__ import annotations

import json
from typing import cast

import pytest

from galaxy_trio._codec.codec import decode_client_message, decode_server_message, encode, structure_device_info
from galaxy_trio.messages import Platform
from tests.codec.support.refusals import refusal
from tests.connection.support.recordings import NAMES, text_frames


def recorded(side: str) -> list[str]:
    """List the texts that one side sent."""
    return [frame.text for name in NAMES for frame in text_frames(name) if frame.sender == side]


def without_nulls(text: str) -> dict[str, object]:
    """Return a message's JSON without the nulls of its own fields. Nulls within JSON values stay."""
    members: dict[str, object] = {name: value for name, value in json.loads(text).items() if value is not None}
    for name in ("actions", "action_results"):
        if name in members:
            items = cast("list[dict[str, object]]", members[name])
            members[name] = [{key: value for key, value in item.items() if value is not None} for item in items]
    return members


def broken_messages() -> list[str]:
    """List the broken texts: the constellation's first three in this recording. Its fourth is valid and refused for its client_id."""
    return [frame.text for frame in text_frames("bad_messages") if frame.sender == "constellation"][:3]


def test_the_recordings_have_the_expected_number_of_messages() -> None:
    assert (len(recorded("server")), len(recorded("constellation")), len(recorded("device"))) == (54, 32, 9)


def test_recorded_server_messages_survive_reading_and_writing() -> None:
    for text in recorded("server"):
        assert json.loads(encode(decode_server_message(text))) == without_nulls(text)


def test_recorded_client_messages_survive_reading_and_writing() -> None:
    for text in recorded("constellation") + recorded("device"):
        if text not in broken_messages():
            assert json.loads(encode(decode_client_message(text))) == without_nulls(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    list(
        zip(
            broken_messages(),
            ["not JSON: ", "expected an object, got the list []", "type: expected one of "],
            strict=True,
        )
    ),
)
def test_recorded_broken_messages_are_refused(text: str, problem: str) -> None:
    assert str(refusal(decode_client_message, text)).startswith(f"invalid message to the server: {problem}")


def test_recorded_device_information_is_read() -> None:
    answers = [decode_server_message(text) for text in recorded("server") if '"device_info_response"' in text]
    info = structure_device_info(answers[0].result)
    assert (info.device_id, info.platform, info.cpu_count, info.memory_total_gb) == (
        "device_001",
        Platform.LINUX,
        8,
        15.63,
    )
