"""Parsing of JSON texts from outside, in one step or in slices: exact, finite and bounded numbers, no lone surrogates."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from galaxy_trio._codec.sliced_json import MAX_NUMBER, TOO_DEEP, Refused, SlicedDecoder, is_too_deep
from galaxy_trio._codec.strict_types import shorten

if TYPE_CHECKING:
    from collections.abc import Generator

_MAX_DIGITS = 300
"""Digits that an integer may have."""
_LONE_SURROGATE = "a lone surrogate in a string"


class Unreadable(Exception):
    """A text is not JSON, or more than is read. The message is one line that quotes no more than an error may show."""


def _refuse_constant(constant: str) -> float:
    raise Unreadable(f"{constant} is not JSON")


def _short_integer(digits: str) -> int:
    # The time to read an integer grows with the square of its digits.
    if len(digits) > _MAX_DIGITS + digits.startswith("-"):
        raise Unreadable(f"an integer of more than {_MAX_DIGITS} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    if len(digits) > MAX_NUMBER:
        raise Unreadable(f"a number of more than {MAX_NUMBER:,} characters")
    number = float(digits)
    if math.isinf(number):
        raise Unreadable(f"the number {shorten(digits)} is out of range")
    return number


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""A regular expression finds it several times as fast as `in`, which searches for its last, frequent letter."""

_decoder = json.JSONDecoder(parse_int=_short_integer, parse_float=_finite_float, parse_constant=_refuse_constant)
_sliced_decoder = SlicedDecoder(_short_integer, _finite_float, _refuse_constant)
_unique_decoder = SlicedDecoder(_short_integer, _finite_float, _refuse_constant, unique_keys=True)
_NOT_SPACE = re.compile(r"[^ \t\n\r]")


def _decode_json(text: str) -> object:
    """Decode like `json.JSONDecoder.decode`, without the search for white space, which messages rarely have around them."""
    if not text.startswith("{"):
        return _decoder.decode(text)
    value, end = _decoder.raw_decode(text)
    if end < len(text) and (extra := _NOT_SPACE.search(text, end)):
        raise json.JSONDecodeError("Extra data", text, extra.start())
    return value


def parse(text: str) -> object:
    """Parse a JSON text.

    Raises:
        Unreadable: The text is not JSON.
    """
    try:
        value = _decode_json(text)
        # The text was UTF-8, so only an escape can contain a lone surrogate. Encoding accepts pairs, as in emoji.
        if "\\" in text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        problem = _problem_of(error, text)
    except UnicodeEncodeError:
        problem = _LONE_SURROGATE
    except RecursionError:
        problem = TOO_DEEP
    else:
        if not is_too_deep(value, text):
            return value
        problem = TOO_DEEP
    # Raised outside the handlers: the caught error refers to the whole text and would become this error's context.
    raise Unreadable(problem)


def parse_in_slices(text: str, max_values: int, *, unique_keys: bool = False) -> Generator[int, None, object]:
    """Parse as `parse` does, one slice of a few milliseconds with each `next`, which returns the slice's number of values and keys.

    Args:
        text: The text.
        max_values: The number of values and keys that it may have.
        unique_keys: Refuse an object in which a key is given twice. Otherwise its last value counts, as in most programs.

    Raises:
        Unreadable: The text is not JSON, has too many values, or they are nested too deep.
    """
    decoder = _unique_decoder if unique_keys else _sliced_decoder
    try:
        return (yield from decoder.decode(text, max_values, str.encode if "\\" in text else len))
    except json.JSONDecodeError as error:
        problem = _problem_of(error, text)
    except UnicodeEncodeError:
        problem = _LONE_SURROGATE
    except Refused as error:
        problem = str(error)
    raise Unreadable(problem)


def _problem_of(error: json.JSONDecodeError, text: str) -> str:
    return (
        f"not JSON: {error.msg} at character {error.pos}, in {shorten(text[max(0, error.pos - 10) : error.pos + 20])}"
    )
