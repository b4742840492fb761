"""Texts of which a single part is large: strings, numbers, white space; and messages with very many commands or results."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio._arguments import MAX_PARTS
from galaxy_trio._codec import sliced_json
from galaxy_trio._codec.codec import decode_client_message, decode_server_message
from galaxy_trio._codec.sliced_json import Refused, SlicedDecoder
from galaxy_trio.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

MIB = 2**20


@contextmanager
def _short_slices() -> Generator[None]:
    """Cut strings after 16 characters. Not a fixture: one of the module's would hold for the other tests too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_json, "_SLICE_SIZE", 16)
        yield


def _decode(text: str) -> tuple[object, int]:
    """Decode a text; return its value and the number of slices."""
    slices, count = SlicedDecoder(int, float, float).decode(text, 1_000_000, str.encode), 1
    while True:
        try:
            next(slices)
        except StopIteration as done:
            return done.value, count
        count += 1


def _outcome(decode: Callable[[str], object], text: str) -> object:
    """Return what a text is decoded to, or the problem and its position."""
    try:
        return decode(text)
    except json.JSONDecodeError as error:
        return error.msg, error.pos
    except UnicodeEncodeError:
        return "a lone surrogate"


def _standard(text: str) -> object:
    value = json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()
    return value


_pieces = st.lists(
    st.sampled_from(
        [
            "a",
            "bcdefgh",
            "é",
            "😀",
            "\\n",
            "\\\\",
            '\\"',
            "\\u0041",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\ud83d",
            "\\ude00",
            "\\",
            "\\u00",
            "\\x",
            "\n",
            '"',
        ]
    ),
    min_size=4,
    max_size=40,
).map("".join)


@given(_pieces, st.sampled_from(['"{}"', '["{}",1]', '{{"{}":1}}', '{{"a":"{}"}}', '"{}']))
def test_string_is_read_in_slices_as_the_standard_library_reads_it(content: str, around: str) -> None:
    text = around.format(content)
    with _short_slices():
        outcome = _outcome(lambda text: _decode(text)[0], text)
    standard = _outcome(_standard, text)
    # Of two problems, each reports the one that it finds first.
    assert outcome == standard or (outcome == "a lone surrogate" and isinstance(standard, tuple))


@pytest.mark.parametrize("piece", ["\\\\", "\\u0041", "\\ud83d\\ude00", '\\"', "\\n", "😀", "x"])
@pytest.mark.parametrize("shift", range(13))
def test_no_cut_changes_a_string(piece: str, shift: int) -> None:
    text = f'"{"y" * shift}{piece * 50}"'
    with _short_slices():
        value, slices = _decode(text)
    assert value == json.loads(text)
    assert slices > 2


@pytest.mark.parametrize("piece", ["x", "\\u0041", '\\"', "\\ud83d\\ude00", "文"])
@pytest.mark.parametrize("around", ['{{"a":"{}"}}', '{{"{}":1}}'], ids=["value", "key"])
def test_long_string_takes_a_slice_for_each_mebibyte(piece: str, around: str) -> None:
    text = around.format(piece * (3 * MIB // len(piece)))
    value, slices = _decode(text)
    assert value == json.loads(text)
    assert slices >= 3


def test_slice_has_at_most_two_strings_just_below_a_mebibyte() -> None:
    text = json.dumps(["\n" * (MIB // 2 - 10)] * 8)
    value, slices = _decode(text)
    assert value == json.loads(text)
    assert slices >= 4


@pytest.mark.parametrize("number", ["1" * 1001, "0." + "1" * 999, "1e" + "0" * 999])
@pytest.mark.parametrize("before", [0, 30_000], ids=["in one step", "in slices"])
def test_number_of_more_than_1000_characters_is_refused(number: str, before: int) -> None:
    kind = (
        "an integer of more than 300 digits"
        if number.isdigit() and not before
        else "a number of more than 1,000 characters"
    )
    with pytest.raises(InvalidMessage, match=kind):
        _read(f'{{"x":[{"0," * before}{number}]}}')
    with pytest.raises(InvalidMessage, match="type is missing"):
        _read(f'{{"x":[{"0," * before}0.{"1" * 998}]}}')


def _read(text: str) -> object:
    if not decode_server_message.needs_slices(text, 500_000):
        return decode_server_message(text)
    slices = decode_server_message.in_slices(text, 500_000)
    while True:
        try:
            next(slices)
        except StopIteration as done:
            return done.value


@pytest.mark.parametrize("place", ["{}[1]", "[{}1]", "[1{}]", "[1,{}2]", '{{"a"{}:1}}', '{{"a":{}1}}', "[1]{}"])
def test_white_space_is_limited_everywhere(place: str) -> None:
    text = place.format(" " * 65_536)
    assert _decode(text)[0] == json.loads(text)
    with pytest.raises(Refused, match="more than 65,536 characters of white space"):
        _decode(place.format(" " * 65_537))


_COMMAND = {"tool_name": "x", "tool_type": "action"}


def test_message_with_more_than_10000_commands_is_refused_with_its_ids() -> None:
    message = {"type": "command", "status": "continue", "session_id": "s", "response_id": "r"}
    text = json.dumps({**message, "actions": [_COMMAND] * MAX_PARTS})
    assert len(decode_server_message(text).actions or []) == MAX_PARTS
    with pytest.raises(InvalidMessage, match="more than 10,000 actions") as caught:
        decode_server_message(json.dumps({**message, "actions": [_COMMAND] * (MAX_PARTS + 1)}))
    assert (caught.value.type, caught.value.session_id, caught.value.response_id) == ("command", "s", "r")


def test_message_with_more_than_10000_results_is_refused_with_its_ids() -> None:
    message = {"type": "command_results", "status": "continue", "session_id": "s", "prev_response_id": "r"}
    results = [{"status": "success"}] * MAX_PARTS
    assert (
        len(decode_client_message(json.dumps({**message, "action_results": results})).action_results or []) == MAX_PARTS
    )
    results.append({"status": "failure"})
    with pytest.raises(InvalidMessage, match="more than 10,000 action_results") as caught:
        decode_client_message(json.dumps({**message, "action_results": results}))
    assert (caught.value.type, caught.value.session_id, caught.value.response_id) == ("command_results", "s", "r")


@pytest.mark.parametrize(
    ("text", "problem", "position"),
    [
        (f'["{"x" * 3 * MIB}\\x"]', "Invalid \\escape", 3 * MIB + 2),
        (f'["{"x" * 3 * MIB}\n"]', "Invalid control character at", 3 * MIB + 2),
        (f'["{"x" * 3 * MIB}', "Unterminated string starting at", 1),
    ],
    ids=["an escape", "a control character", "no end"],
)
def test_error_in_a_long_string_says_where(text: str, problem: str, position: int) -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        _decode(text)
    assert (caught.value.msg, caught.value.pos) == (problem, position)
