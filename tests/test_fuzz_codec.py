"""Whatever text comes, decoding gives a message or `InvalidMessage`: the recordings, damaged in every way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from fuzzing import EVERYTHING, damaged, fuzz
from hypothesis import strategies as st

from galaxy_trio.codec import (
    decode_client_message,
    decode_server_message,
    decode_transfer_message,
    encode,
    structure_device_info,
    unstructure_device_info,
)
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import ServerMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.messages import ClientMessage, TransferMessage

    Message = ClientMessage | ServerMessage | TransferMessage

_TRANSFER: Final = [
    '{"type":"binary_data","filename":"a.png","mime_type":"image/png","size":5,"checksum":"d41d8cd9","session_id":"s",'
    '"timestamp":"2026-11-22T21:02:22","chunk_num":0,"chunk_size":5}',
    '{"type":"file_transfer_start","filename":"a.png","size":9,"chunk_size":5,"total_chunks":2,"mime_type":"image/png"}',
    '{"type":"file_transfer_complete","filename":"a.png","total_chunks":2,"checksum":"d41d8cd98f00b204e9800998ecf8427e"}',
]
_DECODERS: Final = [decode_server_message, decode_client_message, decode_transfer_message]
_SHALLOW: Final = 300
"""Brackets in a text whose messages Python compares whatever else is on its stack."""


def _check_refusal(refusal: InvalidMessage, text: str) -> None:
    assert 0 < len(str(refusal)) <= 300
    assert (refusal.__cause__, refusal.__context__) == (None, None)
    ids = [found for found in (refusal.response_id, refusal.session_id) if found is not None]
    assert sum(map(len, ids)) <= 140
    if "\\" not in text:
        assert all(found in text for found in ids)


def _check_message(decode: Callable[[str | bytes], Message], message: Message, text: str) -> None:
    try:
        written = encode(message)
    except InvalidMessage as refusal:
        # Reading and writing are not equally deep in Python's stack: what is only just read may be too deep to write.
        assert str(refusal).endswith("nested too deep")
        return
    assert written.encode().decode() == written
    read = decode(written)
    assert encode(read) == written
    if text.count("[") + text.count("{") < _SHALLOW:
        assert read == message


def _check_device_information(message: ServerMessage, text: str) -> None:
    try:
        info = structure_device_info(message.result)
    except InvalidMessage as refusal:
        assert 0 < len(str(refusal)) <= 300
        return
    written = unstructure_device_info(info)
    if text.count("[") + text.count("{") < _SHALLOW:
        assert structure_device_info(written) == info


@fuzz(60, text=damaged(EVERYTHING + _TRANSFER), decode=st.sampled_from(_DECODERS))
def test_any_text_is_a_message_that_is_written_and_read_as_it_is_or_is_refused(
    text: str, decode: Callable[[str | bytes], Message]
) -> None:
    try:
        message = decode(text)
    except InvalidMessage as error:
        refusal: InvalidMessage | None = error
        message = None
    else:
        refusal = None
    if message is None:
        assert refusal is not None
        _check_refusal(refusal, text)
        return
    _check_message(decode, message, text)
    if isinstance(message, ServerMessage):
        _check_device_information(message, text)


@pytest.mark.parametrize("text", EVERYTHING + _TRANSFER, ids=range(len(EVERYTHING + _TRANSFER)))
@pytest.mark.parametrize("decode", _DECODERS)
def test_any_beginning_of_a_message_is_refused(text: str, decode: Callable[[str | bytes], Message]) -> None:
    for end in (*range(0, len(text), 37), len(text) - 1):
        with pytest.raises(InvalidMessage) as caught:
            decode(text[:end])
        _check_refusal(caught.value, text)
