"""JSON decoding in slices, compared with the standard library's decoder."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio._codec.sliced_json import MAX_DEPTH, Refused, SlicedDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_spaces = st.text(alphabet=" \t\n\r", max_size=2)
_fragments = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"a"',
            '"',
            "1",
            "-",
            "0",
            "1.5",
            "1e5",
            "true",
            "null",
            "NaN",
            "-Infinity",
            " ",
            "\\",
        ]
    ),
    max_size=12,
)


def _accept(string: str) -> None:
    del string


def _decode(text: str, max_values: int = 1000) -> tuple[object, int]:
    """Decode a text; return its value and the number of slices."""
    decoder = SlicedDecoder(int, float, float)
    slices, count = decoder.decode(text, max_values, _accept), 1
    while True:
        try:
            next(slices)
        except StopIteration as done:
            return done.value, count
        count += 1


def _outcome(decode: Callable[[], object]) -> str | None:
    """Return what a text is decoded to, or None if it is refused."""
    try:
        return json.dumps(decode())
    except json.JSONDecodeError:
        return None


@given(_json, _spaces, st.booleans())
def test_every_value_is_decoded_as_the_standard_library_does(value: object, space: str, ascii_only: bool) -> None:
    text = space + json.dumps(value, ensure_ascii=ascii_only, separators=(f"{space},", f":{space}")) + space
    decoded, _ = _decode(text, 100_000)
    assert json.dumps(decoded) == json.dumps(json.loads(text))


@given(_fragments.map("".join))
def test_text_is_refused_exactly_when_the_standard_library_refuses_it(text: str) -> None:
    assert _outcome(lambda: _decode(text)[0]) == _outcome(lambda: json.loads(text))


@pytest.mark.parametrize(
    ("text", "problem", "position"),
    [
        ("", "Expecting value", 0),
        ("[1,]", "Expecting value", 3),
        ("[-]", "Expecting value", 1),
        ("[1 2]", "Expecting ',' delimiter", 3),
        ("[1}", "Expecting ',' delimiter", 2),
        ('{"a" 1}', "Expecting ':' delimiter", 5),
        ("{1:2}", "Expecting property name enclosed in double quotes", 1),
        ("[] []", "Extra data", 3),
        ('["ab', "Unterminated string starting at", 1),
    ],
)
def test_error_says_what_was_expected_and_where(text: str, problem: str, position: int) -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        _decode(text)
    assert (caught.value.msg, caught.value.pos) == (problem, position)


def test_last_of_equal_keys_counts() -> None:
    assert _decode('{"a":1,"b":2,"a":3}')[0] == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a":1,"b":2,"a":3}', ""),
        ('{"x":{"a":1,"a":3}}', " in x"),
        ('{"x":[0,{"y":[[],{"a":1,"a":3}]}]}', r" in x\[1\]\.y\[1\]"),
    ],
)
def test_key_given_twice_is_refused_on_request_with_its_path(text: str, where: str) -> None:
    decoder = SlicedDecoder(int, float, float, unique_keys=True)
    with pytest.raises(Refused, match=f"the key 'a' is given twice{where}$"):
        next(decoder.decode(text, 100, _accept))
    with pytest.raises(StopIteration):
        next(decoder.decode('{"a":{"a":1},"b":[{"a":1},{"a":1}]}', 100, _accept))


class _Counted:
    """A number that counts the living ones."""

    living = 0

    def __init__(self, digits: str) -> None:
        del digits
        _Counted.living += 1

    def __del__(self) -> None:
        _Counted.living -= 1


@pytest.mark.parametrize("value", ["[1],", '{"a":1},', '{"a":[[1],[1]]},'])
def test_values_of_a_refused_text_are_freed_in_slices(value: str) -> None:
    decoder = SlicedDecoder(cast("Callable[[str], int]", _Counted), float, float)
    slices = decoder.decode(f"[{value * 20_000}", 500_000, _accept)
    most = freed_at_once = 0
    with pytest.raises(json.JSONDecodeError):
        while True:
            before = _Counted.living
            next(slices)
            most = max(most, _Counted.living)
            freed_at_once = max(freed_at_once, before - _Counted.living)
    assert most >= 20_000
    assert _Counted.living <= 4_000
    assert freed_at_once <= 4_000


@pytest.mark.parametrize(
    ("text", "values"),
    [("[1,2,3]", 4), ('{"a":1,"b":[]}', 5), ('"a string, with [commas]: 1,2,3"', 1), ("[[],[],{}]", 4)],
)
def test_values_and_keys_count_and_the_content_of_strings_does_not(text: str, values: int) -> None:
    assert _decode(text, values)[0] == json.loads(text)
    with pytest.raises(Refused, match=f"more than {values - 1} values"):
        _decode(text, values - 1)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_limited(opening: str, closing: str) -> None:
    text = opening * MAX_DEPTH + "1" + closing * MAX_DEPTH
    assert json.dumps(_decode(text, 10_000)[0]).replace(" ", "") == text
    with pytest.raises(Refused, match="nested too deep"):
        _decode(opening + text + closing, 10_000)


@pytest.mark.parametrize("value", ["1,", "[],", '{"a":1},', '"ab",'])
def test_many_values_take_many_slices(value: str) -> None:
    decoded, slices = _decode(f"[{value * 50_000}0]", 500_000)
    assert json.dumps(decoded) == json.dumps(json.loads(f"[{value * 50_000}0]"))
    assert slices >= 12


def test_long_strings_take_many_slices() -> None:
    decoded, slices = _decode(json.dumps(["x" * 2**19] * 20))
    assert decoded == ["x" * 2**19] * 20
    assert slices >= 7


def test_numbers_constants_and_strings_pass_through_the_given_functions() -> None:
    seen: list[str] = []
    decoder = SlicedDecoder(
        lambda digits: int(digits) + 1,
        lambda digits: -float(digits),
        lambda name: f"<{name}>",
    )
    text = '{"kä":[1,2.5,1e3,NaN,-Infinity,Infinity,"ascii","ü"]}'
    slices: Generator[int, None, object] = decoder.decode(text, 100, seen.append)
    with pytest.raises(StopIteration) as done:
        next(slices)
    assert done.value.value == {"kä": [2, -2.5, -1000.0, "<NaN>", "<-Infinity>", "<Infinity>", "ascii", "ü"]}
    assert seen == ["kä", "ü"]


def test_infinite_numbers_are_left_to_the_given_function() -> None:
    assert _decode("[1e999]")[0] == [math.inf]
