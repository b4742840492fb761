"""Decoding any damaged recording results in a message or `InvalidMessage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import pytest
from hypothesis import strategies as st

from galaxy_trio._codec.codec import (
    decode_client_message,
    decode_server_message,
    encode,
    structure_device_info,
    unstructure_device_info,
)
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import JSON, ServerMessage
from tests.support.fuzzing import EVERYTHING, damaged, fuzz

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.messages import ClientMessage

    Message = ClientMessage | ServerMessage

T = TypeVar("T")
R = TypeVar("R")

_DECODERS: Final = [decode_server_message, decode_client_message]
_SHALLOW: Final = 300
"""The number of brackets up to which Python can compare messages with any stack."""


def _check_refusal(refusal: InvalidMessage, text: str) -> None:
    assert 0 < len(str(refusal)) <= 300
    assert (refusal.__cause__, refusal.__context__) == (None, None)
    ids = [found for found in (refusal.response_id, refusal.session_id) if found is not None]
    assert sum(map(len, ids)) <= 140
    if "\\" not in text:
        assert all(found in text for found in ids)


def _outcome(make: Callable[[T], R], value: T) -> R | InvalidMessage:
    """Return the result or the refusal. Any other exception fails the test."""
    try:
        return make(value)
    except InvalidMessage as error:
        return error


def _check_message(decode: Callable[[str | bytes], Message], message: Message, is_shallow: bool) -> None:
    written = _outcome(encode, message)
    if isinstance(written, InvalidMessage):
        # Reading and writing use the stack differently: the deepest readable message may be too deep to write.
        assert str(written).endswith("nested too deep")
        return
    assert written.encode().decode() == written
    read = decode(written)
    assert encode(read) == written
    if is_shallow:
        assert read == message


def _check_device_information(result: JSON, is_shallow: bool) -> None:
    info = _outcome(structure_device_info, result)
    if isinstance(info, InvalidMessage):
        assert 0 < len(str(info)) <= 300
    elif is_shallow:
        assert structure_device_info(unstructure_device_info(info)) == info


@fuzz(60, text=damaged(EVERYTHING), decode=st.sampled_from(_DECODERS))
def test_any_text_is_refused_or_survives_reading_and_writing(
    text: str, decode: Callable[[str | bytes], Message]
) -> None:
    message = _outcome(decode, text)
    if isinstance(message, InvalidMessage):
        _check_refusal(message, text)
        return
    is_shallow = text.count("[") + text.count("{") < _SHALLOW
    _check_message(decode, message, is_shallow)
    if isinstance(message, ServerMessage):
        _check_device_information(message.result, is_shallow)


@pytest.mark.parametrize("text", EVERYTHING, ids=range(len(EVERYTHING)))
@pytest.mark.parametrize("decode", _DECODERS)
def test_any_truncated_message_is_refused(text: str, decode: Callable[[str | bytes], Message]) -> None:
    for end in (*range(0, len(text), 37), len(text) - 1):
        with pytest.raises(InvalidMessage) as caught:
            decode(text[:end])
        _check_refusal(caught.value, text)
