"""An error about a broken message has the ids that attribute it to a request."""

from __future__ import annotations

import uuid

import pytest

from galaxy_trio._arguments import check_client_name, check_task_id
from galaxy_trio._codec.codec import decode_client_message, decode_server_message
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import ClientMessageType, ServerMessageType
from tests.codec.support.refusals import refusal
from tests.codec.support.wire_classes import DEEP

IDS = '"type":"task_end","session_id":"s 1","response_id":"r-1"'


def ids_of(error: InvalidMessage) -> tuple[str | None, str | None, str | None]:
    return error.type, error.session_id, error.response_id


@pytest.mark.parametrize(
    "text",
    [
        f'{{{IDS},"status":5}}',
        f'{{"status":"ok","actions":[{{}}],{IDS}}}',
        f'{{"messages":[5],{IDS}}}',
        f'{{{IDS}, "result": NaN}}',
        f'{{"result": NaN, {IDS}}}',
        f'{{ "result": {{"a": [1e400]}},\n\t{IDS} }}',
        f'{{{IDS},"result":{"7" * 5_000}}}',
        f'{{{IDS},"result":"\\ud800"}}',
        f'{{{IDS},"\\ud800":1}}',
        f'{{{IDS},"result":"cut off he',
        f'{{{IDS},"result":"cut off \\',
        f'{{{IDS},"result":[{{"a":"cut off he',
        f"{{{IDS}",
        f'{{{IDS},"resu',
        f'{{{IDS},"result":"a\nb"}}',
        f'{{{IDS},"result":{"[" * DEEP}{"]" * DEEP}}}',
        f'{{{IDS},"result":{DEEP * "["}',
        f'{{"result":{"[" * 20_000}{"]" * 20_000},{IDS}}}',
        f'{{"result":"}} ] }} \\" }}","a":{{"b":[]}},{IDS},"x":NaN}}',
        f'{{{IDS},"session_id ":"no","Type":"no","x":NaN}}',
    ],
)
def test_an_error_has_the_type_and_ids_of_the_broken_message(text: str) -> None:
    assert ids_of(refusal(decode_server_message, text)) == ("task_end", "s 1", "r-1")


@pytest.mark.parametrize("broken", ['"x":NaN', '"status":5'])
def test_escapes_in_ids_are_decoded(broken: str) -> None:
    text = f'{{"session_id":"a\\"b\\\\c\\n\\u00e9\\ud83d\\ude00","response_id":"\\\\",{broken}}}'
    assert ids_of(refusal(decode_server_message, text)) == (None, 'a"b\\c\né😀', "\\")


@pytest.mark.parametrize(
    "text",
    [
        f'{{"result":{{{IDS}}},"x":NaN}}',
        f'{{"result":{{{IDS}}},"status":5}}',
        f'{{"result":[{{{IDS}}}],"x":NaN}}',
        f'{{"result":{{"a":{{{IDS},"x":NaN',
        f'[{{{IDS},"x":NaN}}]',
        f"[{{{IDS}}}]",
        f'{{"result":"{IDS.replace(chr(34), chr(92) + chr(34))}","x":NaN}}',
        f'"{IDS.replace(chr(34), chr(92) + chr(34))}"',
        f'{{"{"a" * 70_000}":1,{IDS},"x":NaN}}',
        '{"type":5,"session_id":5,"response_id":null,"x":NaN}',
        '{"type":5,"session_id":5,"response_id":null,"status":5}',
        '{"type":["task_end"],"session_id":["s"],"response_id":{"r":"r"},"x":NaN}',
        '{"type":["task_end"],"session_id":["s"],"response_id":{"r":"r"}}',
        '{"type":"nonsense","session_id":"\\x","response_id":"a\nb","x":NaN}',
        '{"session_id","s","response_id" "r","type","task_end"}',
        '{"x":"session_id" {"y":1} "s"}',
        '{"session_id":NaN,"s":1,"response_id":{},"r":1,"type":[],"task_end":1}',
        '"session_id":"s","response_id":"r"',
        "session_id: s",
        "",
    ],
)
def test_ids_that_are_no_strings_of_the_top_level_are_ignored(text: str) -> None:
    assert ids_of(refusal(decode_server_message, text)) == (None, None, None)


@pytest.mark.parametrize("broken", ['"x":NaN', '"status":5'])
@pytest.mark.parametrize(
    ("session", "response", "kept"),
    [(140, 0, (140, 0)), (141, 0, (None, 0)), (0, 140, (0, 140)), (0, 141, (0, None)), (40, 100, (40, 100)),
     (41, 100, (41, None)), (141, 140, (None, 140)), (140, 141, (140, None))],
)  # fmt: skip
def test_ids_above_140_characters_together_are_left_out(
    broken: str, session: int, response: int, kept: tuple[int | None, int | None]
) -> None:
    error = refusal(
        decode_server_message, f'{{"session_id":"{"s" * session}","response_id":"{"r" * response}",{broken}}}'
    )
    assert (error.session_id, error.response_id) == tuple(
        None if length is None else name * length for name, length in zip("sr", kept, strict=True)
    )


def test_the_longest_session_id_of_a_client_is_kept_besides_a_uuid() -> None:
    name = check_client_name("n" * 64)
    session = f"{name}@{check_task_id('t' * 64)}"
    text = f'{{"type":"task_end","session_id":"{session}","response_id":"{uuid.uuid4()}","status":5}}'
    assert refusal(decode_server_message, text).session_id == session


@pytest.mark.parametrize("type_", [*ServerMessageType, *ClientMessageType])
def test_an_error_has_every_type_of_message(type_: str) -> None:
    assert refusal(decode_client_message, f'{{"type":"{type_}","x":NaN}}').type == type_
    assert refusal(decode_client_message, f'{{"type":"{type_}"}}').type == type_


@pytest.mark.parametrize(
    "text",
    ['"' * 300_000, "\\" * 300_000, '"\\' * 300_000, '{"' + '\\"' * 300_000, '{"' + "\\" * 300_001, '{"a":' * 300_000,
     "{" + '"session_id":"a",' * 60_000, "{" + '"a\\u0061":"\\u0061\\x",' * 60_000, "{}" * 300_000, ":" * 300_000],
    ids=range(10),
)  # fmt: skip
def test_hostile_texts_are_searched_for_ids_in_bounded_time(text: str) -> None:
    refusal(decode_server_message, text)


def test_a_truncated_id_is_ignored() -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode_server_message('{"type":"device_info_response","status":"ok","response_id":"device_info_1')
    assert (caught.value.type, caught.value.response_id) == ("device_info_response", None)


def test_an_id_that_is_truncated_by_the_end_of_the_search_is_ignored() -> None:
    head = '{"type":"task_end","status":"ok","error":"'
    filling = "x" * (65_536 - len(head) - len('","session_id":"abc'))
    with pytest.raises(InvalidMessage) as caught:
        decode_server_message(f'{head}{filling}","session_id":"abcdef","result":NaN}}')
    assert (caught.value.type, caught.value.session_id) == ("task_end", None)
