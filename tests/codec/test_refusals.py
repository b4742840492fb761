"""A text that is not a message is refused, with a bounded error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest

from galaxy_trio._codec.codec import decode_server_message
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import JSON, ServerMessageType
from tests.codec.support.refusals import HUGE, UNUSUAL, chain, held, refusal
from tests.codec.support.wire_classes import DEEP, READERS, Class, Message, every_decoder, fits, hints_of, minimal

if TYPE_CHECKING:
    from collections.abc import Callable


NO_MESSAGE = {
    "empty": ("", "not JSON: "),
    "blank": (" \n", "not JSON: "),
    "no JSON": ("{not json", "not JSON: "),
    "single quotes": ("{'type': 'task'}", "not JSON: "),
    "a byte order mark": ('\ufeff{"type": "task"}', "not JSON: "),
    "a truncated string": ('{"type": "task", "status": "o', "not JSON: "),
    "a truncated object": ('{"type": "task", "status": "ok"', "not JSON: "),
    "a truncated escape": ('{"type": "task", "status": "\\u00', "not JSON: "),
    "two objects": ('{"type": "task"} {"type": "task"}', "not JSON: "),
    "a line break in a string": ('{"type": "ta\nsk"}', "not JSON: "),
    "a list": ("[]", "expected an object, got the list []"),
    "an integer": ("5", "expected an object, got the integer 5"),
    "a number": ("5.5", "expected an object, got the number 5.5"),
    "a boolean": ("true", "expected an object, got the boolean True"),
    "null": ("null", "expected an object, got null"),
    "a string": ('"task"', "expected an object, got the string 'task'"),
    "an object in a list": ('[{"type": "task"}]', "expected an object, got the list [{...}]"),
    "NaN": ('{"x": NaN}', "NaN is not JSON"),
    "Infinity": ('{"x": [Infinity]}', "Infinity is not JSON"),
    "-Infinity": ('{"x": -Infinity}', "-Infinity is not JSON"),
    "1e400": ('{"x": 1e400}', "the number '1e400' is out of range"),
    "-1e400": ('{"x": {"y": -1e400}}', "the number '-1e400' is out of range"),
    "301 digits": (f'{{"x": {"7" * 301}}}', "an integer of more than 300 digits"),
    "-301 digits": (f'{{"x": [-{"7" * 301}]}}', "an integer of more than 300 digits"),
    "a lone high surrogate": ('{"x": "\\ud83d"}', "a lone surrogate in a string"),
    "a lone high surrogate in capitals": ('{"x": "\\uD83D"}', "a lone surrogate in a string"),
    "a lone low surrogate": ('{"x": ["\\ude00"]}', "a lone surrogate in a string"),
    "a low surrogate before a high one": ('{"x": "\\ude00\\ud83d"}', "a lone surrogate in a string"),
    "a high surrogate before text": ('{"x": "\\ud83dude00"}', "a lone surrogate in a string"),
    "a lone surrogate in a key": ('{"\\ud83d": 1}', "a lone surrogate in a string"),
    "a lone surrogate in a key within": ('{"x": {"\\uDE00": 1}}', "a lone surrogate in a string"),
    "lists nested deep": ("[" * DEEP + "]" * DEEP, "nested too deep"),
    "objects nested deep": ('{"x":' * DEEP + "1" + "}" * DEEP, "nested too deep"),
    "a field nested deep": ('{"type": "task", "x": ' + "[" * DEEP + "]" * DEEP + "}", "nested too deep"),
    "lists nested 501 deep": ("[" * 501 + "]" * 501, "nested too deep"),
    "objects nested 501 deep": ('{"x":' * 501 + "1" + "}" * 501, "nested too deep"),
    "brackets never closed": ("[" * DEEP, "nested too deep"),
    "braces never closed": ('{"x":' * DEEP, "nested too deep"),
    "a huge string": (f'"{UNUSUAL * 1_000_000}"', "expected an object, got the string "),
    "a huge list": (f"[{','.join(['1'] * 100_000)}]", "expected an object, got the list [1, 1, ...]"),
    "a huge object": (json.dumps({str(n): n for n in range(100_000)}), "type is missing"),
}


@every_decoder
@pytest.mark.parametrize(("text", "problem"), NO_MESSAGE.values(), ids=NO_MESSAGE)
def test_a_text_that_is_not_a_message_is_refused_with_the_reason(
    decode: Callable[[str | bytes], Message], text: str, problem: str
) -> None:
    error = refusal(decode, text)
    assert str(error).split(": ", 1)[1].startswith(problem)
    assert chain(error) == [error]


@every_decoder
@pytest.mark.parametrize("data", [b"", b"12345", b'{"type": "heartbeat", "status": "ok"}', b"\xff" * 1_000_000])
def test_an_error_about_a_binary_frame_contains_only_its_size(
    decode: Callable[[str | bytes], Message], data: bytes
) -> None:
    assert str(refusal(decode, data)).endswith(f": a binary frame of {len(data)} bytes, where AIP expects text")


def test_surrogate_pairs_and_an_escaped_backslash_before_ud_are_read() -> None:
    text = '{"type":"task","status":"ok","request_id":"\\ud83d\\ude00","error":"\\uD83D\\uDE00","result":"\\\\ud83d"}'
    message = decode_server_message(text)
    assert (message.error, message.result) == ("😀", "\\ud83d")


def test_integers_of_300_digits_and_the_largest_float_are_read_exactly() -> None:
    digits = "7" * 300
    message = decode_server_message(
        f'{{"type":"task","status":"ok","result":[{digits},-{digits},1.7976931348623157e308]}}'
    )
    assert message.result == [int(digits), -int(digits), 1.7976931348623157e308]


HUGE_VALUES: dict[str, JSON] = {
    "string": HUGE,
    "list": [cast("JSON", HUGE)] * 100,
    "list of lists": [cast("JSON", [HUGE])] * 100,
    "object": {HUGE: HUGE, f"{HUGE}2": HUGE, f"{HUGE}3": [HUGE]},
    "known keys": {"type": HUGE, "status": [{HUGE: HUGE}], "tool_name": HUGE},
}
HUGE_WRONG = [
    pytest.param(cls, name, value, id=f"{cls.__name__}.{name}-{kind}")
    for cls in READERS
    for name, hint in hints_of(cls).items()
    for kind, value in HUGE_VALUES.items()
    if not fits(hint, value)
]


@pytest.mark.parametrize(("cls", "name", "value"), HUGE_WRONG)
def test_an_error_about_a_field_contains_at_most_200_characters_of_the_message(
    cls: Class, name: str, value: JSON
) -> None:
    read, _ = READERS[cls]
    ids: dict[str, JSON] = {"response_id": UNUSUAL * 70, "session_id": UNUSUAL * 70}
    error = refusal(read, {**minimal(cls), **ids, "unknown": HUGE, name: value})
    assert held(error) <= 200
    assert len(str(error)) <= 300


@every_decoder
@pytest.mark.parametrize(
    "text",
    [
        HUGE,
        f'{{"{HUGE}',
        f'{{"{HUGE}": {HUGE}',
        f'{{"a": "{HUGE}" {HUGE}',
        f'{{"type": "{HUGE}", "response_id": "{"ж" * 70}", "session_id": "{"ж" * 70}", "x": "{HUGE}" ж{HUGE}',
        f'{{"type": "{HUGE}", "response_id": "{"ж" * 100}", "session_id": "{"ж" * 100}", "x": "{HUGE}" ж{HUGE}',
        f'{{"response_id": "{HUGE}", "session_id": "{"ж" * 140}", "x": NaN, "y": "{HUGE}"}}',
        f'{{"session_id": "{"ж" * 140}", "x": "{HUGE}\\ud800{HUGE}"}}',
        f'{{"session_id": "{"ж" * 140}", "x": "{HUGE}\\u{HUGE}"}}',
        f'{{"session_id": "{"ж" * 140}", "{HUGE}": {"[" * DEEP}"{HUGE}"',
        f'{{"session_id": "{"ж" * 140}", "{HUGE}": {"7" * 5_000}, "{HUGE}2": 1}}',
    ],
    ids=range(11),
)
def test_an_error_about_a_broken_text_contains_at_most_200_characters_of_it(
    decode: Callable[[str | bytes], Message], text: str
) -> None:
    error = refusal(decode, text)
    assert held(error) <= 200
    assert len(str(error)) <= 300


@pytest.mark.parametrize("number", ["7" * 5_000, f"{'7' * 5_000}.7", f"7e{'7' * 5_000}", f"-7e{'7' * 5_000}"])
def test_an_error_about_a_long_number_contains_at_most_200_of_its_digits(number: str) -> None:
    error = refusal(decode_server_message, f'{{"type": {number}, "status": {number}}}')
    assert held(error, "7") <= 200


@pytest.mark.parametrize("before", ["", " ", "\n\t"])
@pytest.mark.parametrize("value", ['{"type":"heartbeat","status":"ok"}', "{}", "{", '"x"', "[]", ""])
@pytest.mark.parametrize("after", ["", " ", "\r\n", "x", " }", "\f", " {}"])
def test_text_around_a_message_is_treated_as_the_json_module_treats_it(before: str, value: str, after: str) -> None:
    text = before + value + after
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        with pytest.raises(InvalidMessage, match=f"not JSON: {error.msg} at character {error.pos}, in "):
            decode_server_message(text)
    else:
        if "type" in value:
            assert decode_server_message(text).type is ServerMessageType.HEARTBEAT
        else:
            with pytest.raises(InvalidMessage, match=r"expected an object|is missing"):
                decode_server_message(text)
