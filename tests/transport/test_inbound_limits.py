"""Limits on received bytes are exact, and apply before any library reads the bytes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeAlias

import attrs
import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol

from galaxy_trio._transport.inbound_limits import MAX_FRAGMENTS, MAX_HEAD, MAX_HEAD_LINES, InboundWatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
LIMIT = 300

both_ends = pytest.mark.parametrize("masked", [False, True], ids=["from a server", "from a client"])


@attrs.frozen
class Piece:
    """A fragment of a message, or a control frame between fragments."""

    size: int
    control: str | None = None


Pieces: TypeAlias = "list[Piece]"


def frames_of(pieces: Sequence[Piece], *, masked: bool, text: bool = False) -> list[bytes]:
    """Return a message's frames on the wire. The last fragment finishes the message."""
    protocol = FrameProtocol(client=masked, extensions=[])
    fragments = [number for number, piece in enumerate(pieces) if piece.control is None]
    return [
        bytes(one_frame(protocol, piece, last=number == fragments[-1], text=text))
        for number, piece in enumerate(pieces)
    ]


def one_frame(protocol: FrameProtocol, piece: Piece, *, last: bool, text: bool) -> bytes | bytearray:
    match piece.control:
        case "ping":
            return protocol.ping(b"p" * piece.size)
        case "pong":
            return protocol.pong(b"p" * piece.size)
        case "close":
            return protocol.close(CloseReason.NORMAL_CLOSURE, "c" * max(0, piece.size - 2))
        case _:
            return protocol.send_data("t" * piece.size if text else b"b" * piece.size, fin=last)


def message(size: int, *, masked: bool = False) -> bytes:
    return b"".join(frames_of([Piece(size)], masked=masked))


def watch(limit: int = LIMIT) -> InboundWatch:
    """Make a watch whose handshake is complete."""
    watching = InboundWatch(limit)
    assert watching.feed(HEAD) == len(HEAD)
    return watching


def feed(watching: InboundWatch, chunks: Iterable[bytes]) -> int:
    """Feed until a violation, as a stream does. Returns the number of bytes that were passed on."""
    handed_on = 0
    for chunk in chunks:
        in_handshake = watching.in_handshake
        allowed = watching.feed(chunk)
        if watching.violation is None and allowed < len(chunk):
            # The bytes after the handshake.
            assert in_handshake
            allowed += watching.feed(chunk[allowed:])
        handed_on += allowed
        if watching.violation is not None:
            break
        assert allowed == len(chunk)
    return handed_on


def within_its_header(handed_on: int, before: bytes, frame: bytes, size: int) -> bool:
    """Whether the passed bytes end before the end of the header of a frame with such a payload, so that its payload is unreadable."""
    return len(before) <= handed_on < len(before) + len(frame) - size


def one_by_one(data: bytes) -> list[bytes]:
    return [data[position : position + 1] for position in range(len(data))]


SIZES = [0, 1, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 65_537]


@both_ends
@pytest.mark.parametrize("size", SIZES)
def test_a_message_at_the_limit_passes_and_one_byte_more_does_not(size: int, masked: bool) -> None:
    for data in (message(size, masked=masked), message(size, masked=masked) * 3):
        passes = watch(size)
        assert (passes.feed(data), passes.violation) == (len(data), None)
    before, above = message(size, masked=masked), message(size + 1, masked=masked)
    too_large = watch(size)
    assert within_its_header(too_large.feed(before + above), before, above, size + 1)
    assert too_large.violation == f"a message of more than {size} bytes"


@both_ends
def test_the_size_of_a_message_is_in_bytes(masked: bool) -> None:
    data = bytes(FrameProtocol(client=masked, extensions=[]).send_data("ü" * 10))
    passes, too_large = watch(20), watch(19)
    assert (passes.feed(data), passes.violation) == (len(data), None)
    assert within_its_header(too_large.feed(data), b"", data, 20)
    assert too_large.violation == "a message of more than 19 bytes"


@pytest.mark.parametrize("length", [2**40, 2**63 - 1, 2**64 - 1])
def test_an_oversized_message_is_refused_by_its_header(length: int) -> None:
    watching = watch()
    before, header = message(10), b"\x82\x7f" + length.to_bytes(8)
    assert within_its_header(watching.feed(before + header), before, header, 0)
    assert watching.violation == f"a message of more than {LIMIT} bytes"


@both_ends
def test_the_sizes_of_fragments_add_up(masked: bool) -> None:
    at_limit = frames_of([Piece(100), Piece(0), Piece(199), Piece(1)], masked=masked)
    passes = watch()
    assert (passes.feed(b"".join(at_limit)), passes.violation) == (len(b"".join(at_limit)), None)
    above = frames_of([Piece(100), Piece(0), Piece(199), Piece(2)], masked=masked)
    too_large = watch()
    assert within_its_header(too_large.feed(b"".join(above)), b"".join(above[:3]), above[3], 2)
    assert too_large.violation == f"a message of more than {LIMIT} bytes"


@both_ends
def test_control_frames_between_fragments_do_not_count(masked: bool) -> None:
    pieces = [Piece(150), Piece(125, "ping"), Piece(0, "pong"), Piece(149), Piece(125, "pong")]
    passes = watch()
    data = b"".join(frames_of([*pieces, Piece(1)], masked=masked))
    assert (passes.feed(data), passes.violation) == (len(data), None)
    too_large = watch()
    frames = frames_of([*pieces, Piece(2)], masked=masked)
    assert within_its_header(too_large.feed(b"".join(frames)), b"".join(frames[:-1]), frames[-1], 2)
    assert too_large.violation is not None


def test_a_control_frame_is_not_a_message() -> None:
    watching = watch(limit=10)
    data = b"".join(frames_of([Piece(125, "ping"), Piece(123, "close"), Piece(10)], masked=False))
    assert (watching.feed(data), watching.violation) == (len(data), None)


def empty_fragments(count: int) -> bytes:
    """Make a message of empty frames."""
    return b"\x01\x00" + b"\x00\x00" * (count - 2) + b"\x80\x00"


def test_the_number_of_fragments_is_limited() -> None:
    passes = watch()
    data = empty_fragments(MAX_FRAGMENTS)
    assert (passes.feed(data), passes.violation) == (len(data), None)
    assert passes.feed(empty_fragments(2) + b"\x01\x00") == 6
    assert passes.violation is None
    flood = watch()
    assert flood.feed(empty_fragments(MAX_FRAGMENTS + 2)) == 2 * MAX_FRAGMENTS
    assert flood.violation == f"a message in more than {MAX_FRAGMENTS} fragments"


def test_control_frames_are_not_fragments() -> None:
    watching = watch()
    data = b"\x01\x00" + b"\x89\x00" * MAX_FRAGMENTS + b"\x00\x00" * 10
    assert (watching.feed(data), watching.violation) == (len(data), None)


sizes = st.integers(0, 10) | st.sampled_from([100, 125, 126, 127, LIMIT - 1, LIMIT, LIMIT + 1])
controls = st.builds(Piece, st.integers(0, 125), st.sampled_from(["ping", "pong", "close"]))
messages = st.lists(
    st.tuples(st.lists(controls | st.builds(Piece, sizes), max_size=4), st.builds(Piece, sizes)).map(
        lambda parts: [*parts[0], parts[1]]
    ),
    min_size=1,
    max_size=4,
)


@given(messages, st.booleans(), st.booleans(), st.data())
@example([[Piece(LIMIT)], [Piece(LIMIT), Piece(0, "ping"), Piece(1)]], False, False, None)
def test_the_first_oversized_message_is_found_in_any_pieces(
    sent: list[Pieces], masked: bool, text: bool, data: st.DataObject | None
) -> None:
    """The expected result comes from the sent fragments: their sizes add up to the size of each message."""
    stream, violating = b"", (b"", b"", 0)
    for pieces in sent:
        so_far = 0
        for piece, frame in zip(pieces, frames_of(pieces, masked=masked, text=text), strict=True):
            so_far += 0 if piece.control else piece.size
            if so_far > LIMIT and not violating[1]:
                violating = (stream, frame, piece.size)
            stream += frame
    cuts = [] if data is None else data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    chunks = [stream[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(stream)])]
    for split in ([stream], chunks, one_by_one(stream)):
        watching = watch()
        handed_on = feed(watching, split)
        if violating[1]:
            assert within_its_header(handed_on, *violating)
            assert watching.violation == f"a message of more than {LIMIT} bytes"
        else:
            assert (handed_on, watching.violation) == (len(stream), None)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\n", 101),
        (b"HTTP/1.1 403 Forbidden\r\n", 403),
        (b"HTTP/1.0 502 Bad Gateway\r\n", 502),
        (b"HTTP/1.1 404\r\n", 404),
        (b"HTTP/1.1 404 \n", 404),
        (b"HTTP/1.1 1011 x\r\n", 0),
        (b"HTTP/1.1 99 x\r\n", 0),
        (b"HTTP/1.1 abc x\r\n", 0),
    ],
)
def test_the_first_line_gives_the_status(line: bytes, status: int) -> None:
    watching = InboundWatch(LIMIT)
    statuses: list[int | None] = []
    for byte in one_by_one(line):
        statuses.append(watching.status_code)
        assert watching.feed(byte) == 1
    assert statuses == [None] * len(line)
    assert (watching.status_code, watching.violation) == (status, None)


@pytest.mark.parametrize(
    ("answer", "telling"),
    [
        (b"HTTP/2.0 200 OK\r\n", 6),
        (b"http/1.1 200 OK\r\n", 1),
        (b" HTTP/1.1 200 OK\r\n", 1),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 1),
        (b"GET /ws HTTP/1.1\r\n", 1),
        (b"\xff\xfe", 1),
        (b"\r\n", 1),
    ],
)
def test_an_answer_that_is_not_http_is_known_by_its_first_wrong_byte(answer: bytes, telling: int) -> None:
    watching = InboundWatch(LIMIT)
    statuses = [watching.feed(byte) and watching.status_code for byte in one_by_one(answer)]
    assert statuses == [None] * (telling - 1) + [0] * (len(answer) - telling + 1)


def test_later_lines_do_not_change_the_status() -> None:
    watching = InboundWatch(LIMIT)
    watching.feed(b"HTTP/1.1 403 Forbidden\r\nHTTP/1.1 101 Switching Protocols\r\n")
    watching.feed(b"HTTP/1.1 200 OK\r\n")
    assert watching.status_code == 403


@pytest.mark.parametrize("after", [b"", message(LIMIT), message(LIMIT) + message(LIMIT + 1), b"\x81", b"\r\n\r\n"])
def test_the_handshake_ends_with_the_first_empty_line(after: bytes) -> None:
    whole, single = InboundWatch(LIMIT), InboundWatch(LIMIT)
    assert whole.feed(HEAD + after) == len(HEAD)
    whole.feed(after)
    in_handshake: list[bool] = []
    for byte in one_by_one(HEAD):
        in_handshake.append(single.in_handshake)
        assert single.feed(byte) == 1
    assert all(in_handshake)
    assert (whole.in_handshake, single.in_handshake) == (False, False)
    single.feed(after)
    assert (whole.violation, whole.status_code) == (single.violation, 101)
    assert (whole.violation is not None) == (len(after) > 2 * LIMIT)


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_the_handshake_ends_where_h11_sees_its_end(end: bytes) -> None:
    head = b"GET /ws HTTP/1.1\r\nHost: a.test" + end
    library = h11.Connection(h11.SERVER)
    library.receive_data(head + b"frames")
    library.next_event()
    assert library.trailing_data[0].startswith(b"frames")
    whole, single = InboundWatch(LIMIT), InboundWatch(LIMIT)
    assert whole.feed(head + b"frames") == len(head)
    for byte in one_by_one(head):
        assert single.in_handshake
        single.feed(byte)
    assert (whole.in_handshake, single.in_handshake) == (False, False)
    assert whole.headers == single.headers == {b"host": b"a.test"}


@given(st.lists(st.integers(0, len(HEAD)), max_size=10).map(sorted))
def test_the_first_frame_is_found_after_a_head_in_any_pieces(cuts: list[int]) -> None:
    above = message(LIMIT + 1)
    stream = HEAD + above
    watching = InboundWatch(LIMIT)
    chunks = [stream[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(stream)])]
    assert within_its_header(feed(watching, chunks), HEAD, above, LIMIT + 1)
    assert watching.status_code == 101
    assert watching.violation == f"a message of more than {LIMIT} bytes"


@pytest.mark.parametrize("step", [1, 7, 1024, MAX_HEAD])
def test_the_size_of_an_endless_head_is_limited(step: int) -> None:
    watching = InboundWatch(LIMIT)
    head = b"HTTP/1.1 200 OK\r\n".ljust(MAX_HEAD, b"x")
    chunks = [head[start : start + step] for start in range(0, MAX_HEAD, step)]
    assert feed(watching, chunks) == MAX_HEAD
    assert (watching.in_handshake, watching.violation) == (True, None)
    assert watching.feed(b"x") == 0
    assert watching.violation == f"a handshake of more than {MAX_HEAD} bytes"


@pytest.mark.parametrize("step", [1, MAX_HEAD])
def test_the_number_of_headers_is_limited(step: int) -> None:
    allowed = b"HTTP/1.1 101 x\r\n" + b"a:\r\n" * (MAX_HEAD_LINES - 2)
    watching = InboundWatch(LIMIT)
    assert feed(watching, [allowed + b"\r\n"]) == len(allowed) + 2
    assert watching.violation is None
    watching = InboundWatch(LIMIT)
    endless = allowed + b"a:\r\n" * 2
    feed(watching, [endless[start : start + step] for start in range(0, len(endless), step)])
    assert watching.violation == f"a handshake of more than {MAX_HEAD_LINES} lines"


def test_the_library_gets_few_frames_at_a_time_and_a_large_payload_in_large_portions() -> None:
    watching = InboundWatch(100 * MAX_HEAD)
    watching.feed(HEAD)
    assert watching.portion == 4096
    frame = message(2**20)
    watching.feed(frame[:100])
    assert watching.portion == 2 * MAX_HEAD
    watching.feed(frame[100:-5000])
    assert watching.portion == 5000
    watching.feed(frame[-5000:])
    assert watching.portion == 4096


def test_a_bytearray_can_be_fed() -> None:
    watching = InboundWatch(LIMIT)
    assert watching.feed(bytearray(HEAD)) == len(HEAD)
    assert watching.feed(bytearray(message(LIMIT))) == len(message(LIMIT))
    assert watching.feed(bytearray(message(LIMIT + 1))) < 4
    assert watching.violation is not None


def test_a_complete_head_above_the_limit_is_a_violation() -> None:
    watch = InboundWatch(10)
    assert watch.feed(b"HTTP/1.1 101 x\r\n".ljust(MAX_HEAD + 1, b"a") + b"\r\n\r\n") == 0
    assert watch.violation == f"a handshake of more than {MAX_HEAD} bytes"
