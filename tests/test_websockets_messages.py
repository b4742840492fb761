"""Frames through the protocol of websockets, without a socket: however they are cut, and whatever is wrong with them."""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.protocol import Protocol, Side
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from galaxy_trio.inbound import InboundWatch
from galaxy_trio.websocket import TransportEnded
from galaxy_trio.websockets_messages import IncomingMessages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from websockets.frames import Frame

LIMIT = 70_000
HEAD = b"HTTP/1.1 101 x\r\n\r\n"

both_ends = pytest.mark.parametrize("masked", [False, True], ids=["a client reads", "a server reads"])


@attrs.define
class Read:
    """What came of some bytes."""

    messages: list[str | bytes]
    ended: TransportEnded | None
    close_with: int | None
    answers: bytes
    steps: int


def open_messages(*, masked: bool = False, limit: int = LIMIT) -> IncomingMessages:
    watch = InboundWatch(limit, strict=True)
    assert watch.feed(HEAD) == len(HEAD)
    protocol = Protocol(Side.SERVER if masked else Side.CLIENT, max_size=None)
    return IncomingMessages(protocol, watch, limit)


def read(chunks: Iterable[bytes], *, masked: bool = False, limit: int = LIMIT) -> Read:
    """Feed and step as a transport does."""
    incoming = open_messages(masked=masked, limit=limit)
    result = Read([], None, None, b"", 0)
    for chunk in chunks:
        incoming.feed(chunk)
        while incoming.is_unread:
            incoming.step()
            result.steps += 1
            result.answers += b"".join(incoming.protocol.data_to_send())
            while (message := incoming.next()) is not None:
                result.messages.append(message)
    result.ended, result.close_with = incoming.ended, incoming.close_with
    return result


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]


def frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    """A frame by hand, whatever is in it."""
    bit, size = (0x80 if masked else 0), len(payload)
    if size < 126:
        header = bytes((first, bit | size))
    elif size < 2**16:
        header = struct.pack("!BBH", first, bit | 126, size)
    else:
        header = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return header + payload
    key = b"\x0f\xf0\xa5\x5a"
    return header + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


# ---- whatever is sent in good order


@attrs.frozen
class Sent:
    """A message, or a control frame, and the frames that it is sent as."""

    message: str | bytes | None
    frames: tuple[tuple[int, bytes], ...]


def in_pieces(message: str | bytes, places: list[int], between: tuple[int, bytes] | None) -> Sent:
    data = message.encode() if isinstance(message, str) else message
    pieces = cut(data, places) or [b""]
    firsts = [0x01 if isinstance(message, str) else 0x02, *[0] * (len(pieces) - 1)]
    firsts[-1] |= 0x80
    frames = list(zip(firsts, pieces, strict=True))
    if between is not None:
        frames.insert(1, between)
    return Sent(message, tuple(frames))


controls = st.tuples(st.sampled_from([0x89, 0x8A]), st.binary(max_size=125))
texts = st.one_of(st.text(max_size=10), st.integers(0, 200).map("é".__mul__), st.sampled_from(["y" * 2**16, "x" * 125]))
sent = st.one_of(
    texts.map(lambda text: Sent(text, ((0x81, text.encode()),))),
    st.builds(
        in_pieces,
        texts | st.binary(max_size=200),
        st.lists(st.integers(0, 1000), max_size=4),
        st.none() | controls,
    ),
    controls.map(lambda control: Sent(None, (control,))),
)


@both_ends
@given(st.lists(sent, max_size=8), st.lists(st.integers(0, 2**20), max_size=8))
@example([Sent("", ((0x81, b""),))], [])
@example([in_pieces(b"", [], None), in_pieces("", [], None)], [])
@example([in_pieces("é", [1], (0x89, b"between"))], [])
def test_however_the_bytes_are_cut_each_message_comes_once_and_in_order_and_each_ping_is_answered(
    masked: bool, all_sent: list[Sent], places: list[int]
) -> None:
    frames = [one for each in all_sent for one in each.frames]
    result = read(cut(b"".join(frame(*one, masked=masked) for one in frames), places), masked=masked)
    assert result.messages == [each.message for each in all_sent if each.message is not None]
    assert result.ended is None
    # The answers of a client are masked.
    reader = FrameProtocol(client=masked, extensions=[])
    reader.receive_bytes(result.answers)
    pongs = [(Opcode.PONG, payload) for first, payload in frames if first == 0x89]
    assert [(answer.opcode, answer.payload) for answer in reader.received_frames()] == pongs


@both_ends
def test_one_byte_at_a_time_is_read_too(masked: bool) -> None:
    frames = [(0x81, b"one"), (0x01, b"tw"), (0x80, b"o"), (0x81, b"3" * 126), (0x82, b"four")]
    data = b"".join(frame(*one, masked=masked) for one in frames)
    result = read((bytes((byte,)) for byte in data), masked=masked)
    assert result.messages == ["one", "two", "3" * 126, b"four"]


@both_ends
@pytest.mark.parametrize("first", [0x81, 0x89, 0x8A, 0x82])
def test_no_more_than_64_frames_are_read_in_a_step(first: int, masked: bool) -> None:
    count = 1000
    result = read([frame(first, b"", masked=masked) * count], masked=masked)
    assert result.steps == -(-count // 64)


@both_ends
def test_texts_before_other_frames_count_towards_the_64_of_a_step(masked: bool) -> None:
    text, ping = frame(0x81, b"x", masked=masked), frame(0x89, b"", masked=masked)
    assert read([text * 63 + ping + text * 64], masked=masked).steps == 2
    assert read([text * 64 + ping], masked=masked).steps == 2


@both_ends
def test_what_looks_like_a_text_within_another_frame_is_none(masked: bool) -> None:
    # The key of the mask is in front of the payload: here the payload is what stands on the wire.
    header = b"\x82\x94\0\0\0\0" if masked else b"\x82\x14"
    payload = frame(0x81, b"x", masked=masked).ljust(20, b".")
    for place in range(20):
        assert read([header + payload[:place], payload[place:]], masked=masked).messages == [payload]
        shifted = b"." * place + payload[: 20 - place]
        assert read([header + shifted[:place], shifted[place:]], masked=masked).messages == [shifted]


# ---- how it ends


@both_ends
@pytest.mark.parametrize("before", [b"", b"\x01"], ids=["between messages", "within a message"])
@given(st.lists(st.integers(0, 1000), max_size=4))
def test_a_close_ends_it_with_its_code_and_reason_and_what_follows_is_not_read(
    masked: bool, before: bytes, places: list[int]
) -> None:
    data = frame(0x81, b"last", masked=masked)
    if before:
        data += frame(0x01, b"part", masked=masked)
    data += frame(0x88, b"\x03\xf3because", masked=masked) + frame(0x81, b"late", masked=masked)
    result = read(cut(data, places), masked=masked)
    assert result.messages == ["last"]
    assert result.ended is not None
    assert (result.ended.code, "'because'" in result.ended.reason) == (1011, True)
    # The protocol has answered it.
    assert result.close_with is None
    assert result.answers[0] == 0x88


def test_a_close_without_a_code_is_1005() -> None:
    ended = read([frame(0x88, b"", masked=False)]).ended
    assert ended is not None
    assert (ended.code, ended.reason) == (1005, "the WebSocket was closed with 1005, no status rcvd")


def test_a_close_with_a_code_that_has_been_given_out_since_is_a_close() -> None:
    ended = read([frame(0x88, (1014).to_bytes(2), masked=False)]).ended
    assert ended is not None
    assert ended.reason == "the WebSocket was closed with 1014, rfc reserved"


WRONG: dict[str, tuple[list[tuple[int, bytes]], int]] = {
    "a reserved bit, as of a compressed frame": ([(0xC1, b"x")], 1002),
    "a reserved bit of a ping": ([(0x99, b"")], 1002),
    "no such opcode": ([(0x83, b"")], 1002),
    "no such control opcode": ([(0x8B, b"")], 1002),
    "a continuation of nothing": ([(0x80, b"x")], 1002),
    "an unfinished continuation of nothing": ([(0x00, b"x")], 1002),
    "a continuation after a text by itself": ([(0x81, b"x"), (0x00, b"x")], 1002),
    "a message in a message": ([(0x01, b"x"), (0x81, b"y")], 1002),
    "a binary message in a text": ([(0x01, b"x"), (0x02, b"y")], 1002),
    "a ping in fragments": ([(0x09, b"")], 1002),
    "a large ping": ([(0x89, bytes(126))], 1002),
    "a large close": ([(0x88, b"\x03\xe8" + bytes(124))], 1002),
    "a large ping in a message": ([(0x01, b"x"), (0x89, bytes(70_000))], 1002),
    "a close of one byte": ([(0x88, b"\x03")], 1002),
    "a close with a code that is not for the wire": ([(0x88, b"\x03\xee")], 1002),
    "no UTF-8": ([(0x81, b"\xc3\x28")], 1007),
    "no UTF-8 in a long text": ([(0x81, b"\xc3\x28" * 200)], 1007),
    "half a character": ([(0x81, b"\xc3")], 1007),
    "a surrogate": ([(0x81, b"\xed\xa0\x80")], 1007),
    "no UTF-8 in a fragment": ([(0x01, b"\xc3"), (0x80, b"\x28")], 1007),
    "no UTF-8 in the reason of a close": ([(0x88, b"\x03\xe8\xff")], 1007),
    "a message above the limit": ([(0x81, bytes(LIMIT + 1))], 1009),
    "a message above the limit in fragments": ([(0x01, bytes(LIMIT)), (0x00, b"x")], 1009),
    "a binary message above the limit": ([(0x82, bytes(LIMIT + 1))], 1009),
}


@both_ends
@pytest.mark.parametrize("what", WRONG)
@settings(max_examples=8)
@given(st.lists(st.integers(0, 100_000), max_size=4), st.integers(0, 3))
def test_what_is_wrong_ends_it_with_its_code_after_what_came_before(
    masked: bool, what: str, places: list[int], texts_before: int
) -> None:
    frames, code = WRONG[what]
    good = frame(0x81, b"good", masked=masked)
    data = good * texts_before + b"".join(frame(*one, masked=masked) for one in frames)
    result = read(cut(data + good * 3, places), masked=masked)
    assert result.messages[:texts_before] == ["good"] * texts_before
    assert "good" not in result.messages[texts_before:]
    assert result.ended is not None
    assert result.ended.code == code
    assert result.close_with == code


@both_ends
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_wrong_too_when_each_frame_comes_by_itself(masked: bool, what: str) -> None:
    frames, code = WRONG[what]
    result = read([*(frame(*one, masked=masked) for one in frames), frame(0x81, b"good", masked=masked)], masked=masked)
    assert result.ended is not None
    assert (result.ended.code, result.close_with) == (code, code)
    assert "good" not in result.messages


@both_ends
@pytest.mark.parametrize("first", [0x81, 0x82, 0x01, 0x89, 0x88])
def test_a_frame_with_a_mask_where_none_may_be_or_none_where_one_must_be_ends_it(first: int, masked: bool) -> None:
    result = read([frame(first, b"", masked=not masked)], masked=masked)
    assert result.ended is not None
    assert result.ended.code == 1002


HEADERS: dict[str, tuple[bytes, int]] = {
    "a text above the limit": (b"\x81\x7f" + (LIMIT + 1).to_bytes(8), 1009),
    "the largest text": (b"\x81\x7f" + (2**63 - 1).to_bytes(8), 1009),
    "a compressed text": (b"\xc1\x7e\xff\xff", 1002),
    "a ping of any size": (b"\x89\x7f" + (2**62).to_bytes(8), 1002),
    "a ping of 126 bytes": (b"\x89\x7e\x00\x7e", 1002),
    "a close in fragments": (b"\x08\x7d", 1002),
    "a length of 2 bytes that needs none": (b"\x81\x7e\x00\x7d", 1002),
    "a length of 8 bytes that needs 2": (b"\x81\x7f" + (2**16 - 1).to_bytes(8), 1002),
    "a length with the highest bit": (b"\x81\x7f" + (2**63 + 1).to_bytes(8), 1002),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_alone_is_enough_to_end_it_and_nothing_is_waited_for(what: str) -> None:
    header, code = HEADERS[what]
    for chunks in ([header], [bytes((byte,)) for byte in header]):
        ended = read(chunks).ended
        assert ended is not None
        assert ended.code == code


@both_ends
def test_a_message_of_the_limit_is_read_whole_or_in_fragments(masked: bool) -> None:
    at_limit = "x" * 1000
    half = at_limit[:500].encode()
    data = frame(0x81, at_limit.encode(), masked=masked)
    data += frame(0x01, half, masked=masked) + frame(0x89, b"p" * 125, masked=masked) + frame(0x80, half, masked=masked)
    assert read([data], masked=masked, limit=1000).messages == [at_limit, at_limit]


def test_empty_fragments_are_counted_and_take_no_memory() -> None:
    incoming = open_messages()
    incoming.feed(frame(0x01, b"", masked=False) + frame(0x00, b"", masked=False) * 5000)
    while incoming.is_unread:
        incoming.step()
    assert incoming.ended is None
    assert (incoming._texts, incoming._pieces) == ([], [])


def test_what_is_wrong_with_the_protocol_itself_comes_out_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Protocol, frame: Frame) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Protocol, "recv_frame", crash)
    incoming = open_messages()
    incoming.feed(frame(0x82, b"x", masked=False))
    with pytest.raises(RuntimeError, match="a bug"):
        incoming.step()


def test_messages_that_nobody_wants_can_be_dropped() -> None:
    incoming = open_messages()
    incoming.feed(frame(0x81, b"x", masked=False))
    incoming.step()
    incoming.clear()
    assert incoming.next() is None


def test_what_came_first_counts_when_a_close_and_a_wrong_frame_come_in_one_piece() -> None:
    close, wrong = frame(0x88, b"\x03\xe8", masked=False), frame(0xC1, b"", masked=False)
    first = read([close + wrong]).ended
    second = read([wrong + close]).ended
    bad_text = read([frame(0x81, b"\xff", masked=False) + close])
    assert first is not None
    assert second is not None
    assert bad_text.ended is not None
    assert (first.code, second.code, bad_text.ended.code) == (CloseReason.NORMAL_CLOSURE, 1002, 1007)
