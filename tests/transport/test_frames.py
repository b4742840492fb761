"""The frame codec agrees with wsproto, and leaves all other frames unread."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from galaxy_trio._transport.frames import LargeFrame, NoMessage, Ping, TextFrames, sending_frame, text_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 2**20
LARGE = "ä€😀x" * 20_000
"""A text of the size that is decoded in pieces, with characters of every length."""

texts = st.one_of(st.text(max_size=20), st.integers(0, 300).map("é".__mul__), st.sampled_from([LARGE, "y" * 2**16]))


def server_frame(payload: str | bytes, *, fin: bool = True) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(payload, fin=fin))


def under_mask(frame: bytes, key: bytes = b"\x01\xff\x00\x80") -> bytes:
    """Convert a server's frame, or its beginning, to a client's masked one."""
    header = {126: 4, 127: 10}.get(frame[1], 2)
    payload = bytearray(frame[header:])
    for turn, part in enumerate(key):
        payload[turn::4] = payload[turn::4].translate(bytes(byte ^ part for byte in range(256)))
    return bytes((frame[0], frame[1] | 0x80)) + frame[2:header] + key + payload


def ping(payload: bytes) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).ping(payload))


PONG = bytes(FrameProtocol(client=False, extensions=[]).pong(b"!"))


@attrs.define
class Read:
    """The result of reading some bytes."""

    messages: list[str | Ping] = attrs.Factory(list[str | Ping])
    rest: bytes | None = None
    """The bytes that are left to the library; None if there are none."""


def read(chunks: Iterable[bytes], limit: int = LIMIT, *, masked: bool = False) -> Read:
    """Feed and read as a transport does, until a frame is left."""
    frames, result = TextFrames(limit, masked=masked), Read()
    for chunk in chunks:
        if result.rest is not None:
            result.rest += chunk
            continue
        frames.feed(chunk)
        while (found := frames.next()) is not NoMessage.MORE_NEEDED:
            if found is NoMessage.LEFT:
                result.rest = frames.rest()
                assert frames.rest() == b""
                break
            if found is not NoMessage.PONG:
                result.messages.append(found)
    return result


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]


@given(texts, st.booleans())
@example("a" * 125, True)
@example("a" * 126, True)
@example("a" * (2**16 - 1), True)
@example("a" * 2**16, True)
@example("a" * 2**16, False)
@example("", True)
def test_wsproto_reads_a_frame_as_one_whole_text(text: str, masked: bool) -> None:
    reader = FrameProtocol(client=not masked, extensions=[])
    reader.receive_bytes(text_frame(text, masked=masked))
    frames = list(reader.received_frames())
    assert [frame.opcode for frame in frames] == [Opcode.TEXT] * len(frames)
    assert "".join(str(frame.payload) for frame in frames) == text
    assert [frame.message_finished for frame in frames] == [False] * (len(frames) - 1) + [True]


def test_an_unmasked_frame_equals_wsprotos() -> None:
    for size in (0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**16 + 1):
        assert text_frame("z" * size, masked=False) == server_frame("z" * size)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [2**18 + 1, 2**18 + 3, 2**20])
def test_large_frame_is_made_in_slices_and_read_as_one_message(size: int, masked: bool) -> None:
    text = "ä€😀x" * size
    frame = sending_frame(text, masked=masked)
    assert isinstance(frame, LargeFrame)
    slices = list(frame.slices())
    assert len(b"".join(slices)) == len(frame)
    assert max(map(len, slices)) < 2**18 + 16
    assert read(slices, masked=masked, limit=len(frame)).messages == [text]


def test_frame_of_a_small_message_is_made_in_one_step() -> None:
    assert isinstance(sending_frame("x" * 2**18, masked=False), bytes)


def test_every_masked_frame_has_a_fresh_key() -> None:
    keys = {text_frame("the same", masked=True)[2:6] for _ in range(100)}
    large = {next(LargeFrame("x" * 2**16, masked=True).slices())[10:14] for _ in range(100)}
    assert len(keys) == len(large) == 100


def test_a_lone_surrogate_raises() -> None:
    with pytest.raises(UnicodeEncodeError):
        text_frame("\ud800", masked=True)


@given(
    st.lists(st.one_of(texts, st.binary(max_size=125).map(Ping), st.just(PONG)), max_size=6),
    st.lists(st.integers(0, 10**7), max_size=12),
    st.booleans(),
)
@example(["a" * 125, "b" * 126, "c" * (2**16 - 1), "d" * 2**16, ""], list(range(0, 3 * 2**16, 1000)), False)
@example(["a" * 125, "b" * 126, "c" * (2**16 - 1), "d" * 2**16, ""], list(range(0, 3 * 2**16, 1000)), True)
@example([LARGE, "after"], list(range(20)), False)
@example([LARGE, "after"], list(range(20)), True)
@example([Ping(b"p" * 125), PONG, LARGE, Ping(b"")], [1], False)
@example([Ping(b"p" * 125), PONG, LARGE, Ping(b"")], [1], True)
def test_each_message_is_read_once_and_in_order_from_any_pieces(
    sent: list[str | Ping | bytes], places: list[int], masked: bool
) -> None:
    frames = [
        server_frame(item) if isinstance(item, str) else ping(item.payload) if isinstance(item, Ping) else item
        for item in sent
    ]
    data = b"".join(map(under_mask, frames) if masked else frames)
    result = read(cut(data, places), masked=masked)
    assert result.messages == [item for item in sent if not isinstance(item, bytes)]
    assert result.rest is None


@pytest.mark.parametrize("masked", [False, True])
def test_messages_are_read_from_single_bytes(masked: bool) -> None:
    frames = [server_frame("né"), ping(b"12"), server_frame("m" * 200)]
    data = b"".join(map(under_mask, frames) if masked else frames)
    assert read((bytes([byte]) for byte in data), masked=masked).messages == ["né", Ping(b"12"), "m" * 200]


@given(texts)
@example(LARGE)
def test_a_text_survives_masking_and_unmasking(text: str) -> None:
    assert read([text_frame(text, masked=True)], masked=True).messages == [text]


_LEFT = {
    "a binary message": server_frame(b"binary"),
    "the first fragment of a text": server_frame("part", fin=False),
    "a fragment without a first one": b"\x80\x01a",
    "a close frame": bytes(FrameProtocol(client=False, extensions=[]).close(CloseReason.NORMAL_CLOSURE, "bye")),
    "a reserved bit": b"\xc1\x01a",
    "a reserved opcode": b"\x83\x01a",
    "a reserved control opcode": b"\x8b\x01a",
    "a fragmented ping": b"\x09\x01a",
    "a masked text": text_frame("masked", masked=True),
    "a masked ping": bytes(FrameProtocol(client=True, extensions=[]).ping(b"masked")),
    "a ping of more than 125 bytes": b"\x89\x7e\x00\x7e" + b"p" * 126,
    "a length in two bytes that fits into one": b"\x81\x7e\x00\x7d" + b"a" * 125,
    "a length in eight bytes that fits into two": b"\x81\x7f" + struct.pack("!Q", 2**16 - 1) + b"a" * (2**16 - 1),
    "a length of more than 63 bits": b"\x81\x7f" + b"\xff" * 8,
    "a text above the limit": b"\x81\x7f" + struct.pack("!Q", LIMIT + 1),
    "a text that is no UTF-8": b"\x81\x02a\xff",
    "a text that ends within a character": b"\x81\x02a\xc3",
    "a surrogate in UTF-8": b"\x81\x03\xed\xa0\x80",
}


_LEFT_OF_A_CLIENT = {
    "a text that is not masked": server_frame("text"),
    "a ping that is not masked": ping(b"ping"),
    **{what: under_mask(frame) for what, frame in _LEFT.items() if not what.startswith("a masked")},
}


@pytest.mark.parametrize(
    ("masked", "what"), [*((False, what) for what in _LEFT), *((True, what) for what in _LEFT_OF_A_CLIENT)]
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "after a message"])
@pytest.mark.parametrize("step", [1, 5, 1000, 2**16 + 5, 2**20])
def test_the_rest_begins_with_the_frame_that_is_left(masked: bool, what: str, is_first: bool, step: int) -> None:
    left = (_LEFT_OF_A_CLIENT if masked else _LEFT)[what]
    before, after = (
        under_mask(frame) if masked else frame for frame in (server_frame("before"), server_frame("after"))
    )
    data = (b"" if is_first else before) + left + after
    if step < 1000 and len(data) > 1000:
        step = 997
    result = read((data[start : start + step] for start in range(0, len(data), step)), masked=masked)
    assert result.messages == ([] if is_first else ["before"])
    assert result.rest == left + after


@pytest.mark.parametrize(
    "payload",
    [b"\xc3\xa4" * 2**18 + b"\xff" + b"a" * 2**16, b"\xc3\xa4" * 2**18 + b"\xff" + b"a" * 10, b"a" * 2**19 + b"\xc3"],
    ids=["in its middle", "near its end", "at its end"],
)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("step", [997, 2**12, 2**16 + 5])
def test_only_the_piece_of_a_large_text_that_is_no_utf8_is_left_and_refused_for_that(
    payload: bytes, masked: bool, step: int
) -> None:
    left = b"\x81\x7f" + struct.pack("!Q", len(payload)) + payload
    data = (under_mask(left) if masked else left) + (under_mask(PONG) if masked else PONG)
    result = read((data[start : start + step] for start in range(0, len(data), step)), masked=masked)
    assert result.messages == []
    assert result.rest is not None
    library = FrameProtocol(client=not masked, extensions=[])
    after_the_broken_piece = len(payload) - payload.rindex(b"\xff" if b"\xff" in payload else b"\xc3") + len(PONG)
    assert len(result.rest) < after_the_broken_piece + step + 2**12 + 20
    library.receive_bytes(result.rest)
    with pytest.raises(ParseFailed) as caught:
        list(library.received_frames())
    assert caught.value.code is CloseReason.INVALID_FRAME_PAYLOAD_DATA


def test_a_text_above_the_limit_is_left_by_its_header() -> None:
    assert read([server_frame("x" * 300)], limit=300).messages == ["x" * 300]
    assert read([server_frame("x" * 301)[:3]], limit=300).rest is None
    assert read([server_frame("x" * 301)[:4]], limit=300).rest == server_frame("x" * 301)[:4]
    assert read([server_frame("é" * 151)[:4]], limit=300).rest is not None


def test_the_rest_contains_all_unread_bytes_even_within_a_frame() -> None:
    begun = [b"\x81", server_frame("abc")[:4], server_frame(LARGE)[:-1], server_frame(LARGE)[:12], ping(b"12")[:3]]
    for data, masked in [*((each, False) for each in begun), *((under_mask(each), True) for each in begun[1:])]:
        frames = TextFrames(LIMIT, masked=masked)
        for text in ("read", "again"):
            frames.feed(under_mask(server_frame(text)) if masked else server_frame(text))
            assert (frames.has_unread, frames.next(), frames.has_unread) == (True, text, False)
            frames.feed(data)
            assert frames.next() is NoMessage.MORE_NEEDED
            assert frames.rest() == data


@pytest.mark.parametrize("masked", [False, True])
def test_a_large_text_that_arrives_in_single_bytes_takes_little_more_memory_than_the_text(masked: bool) -> None:
    text = "ж" * 2**15
    data = under_mask(server_frame(text)) if masked else server_frame(text)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert read((data[index : index + 1] for index in range(len(data))), masked=masked).messages == [text]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 5 * len(data)


def test_missing_reports_the_bytes_that_a_large_text_lacks() -> None:
    data = server_frame("x" * 100_000)
    frames = TextFrames(LIMIT, masked=False)
    assert frames.missing == 0
    frames.feed(data[:10])
    assert (frames.next(), frames.missing) == (NoMessage.MORE_NEEDED, 100_000)
    frames.feed(data[10:60_010])
    assert (frames.next(), frames.missing) == (NoMessage.MORE_NEEDED, 40_000)
    frames.feed(data[60_010:])
    assert (frames.next(), frames.missing) == ("x" * 100_000, 0)
