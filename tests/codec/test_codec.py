"""Text to message and back: what is read, what is refused, and what a refusal keeps of its input."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from enum import StrEnum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, ForwardRef, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import attrs
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from galaxy_trio import messages
from galaxy_trio._codec.codec import (
    Template,
    decode_client_message,
    decode_server_message,
    encode,
    structure_device_info,
    unstructure_device_info,
)
from galaxy_trio._codec.converters import make_converter
from galaxy_trio.errors import (
    ConnectionLost,
    ConnectTimeout,
    HandshakeRejected,
    InvalidMessage,
    RequestTimeout,
    TaskFailed,
)
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    ClientType,
    Command,
    CommandResult,
    DeviceInfo,
    Platform,
    PlatformType,
    ResultStatus,
    ServerMessage,
    ServerMessageType,
    TaskResult,
    TaskStatus,
    ToolType,
)
from tests.connection.support.recordings import NAMES, text_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Message: TypeAlias = ClientMessage | ServerMessage
Class: TypeAlias = type[attrs.AttrsInstance]
T = TypeVar("T")

UNUSUAL = "ж"
"""A character that no error of the package has by itself."""

DECODERS: dict[type[Message], Callable[[str | bytes], Message]] = {
    ServerMessage: decode_server_message,
    ClientMessage: decode_client_message,
}
every_decoder = pytest.mark.parametrize("decode", DECODERS.values(), ids=[cls.__name__ for cls in DECODERS])


# ---- what the classes say, read without the package's own converter


def alternatives(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def hints_of(cls: Class) -> dict[str, object]:
    """The types of the fields that are on the wire under their own names."""
    return {name: hint for name, hint in get_type_hints(cls).items() if name != "extra"}


def required(cls: Class) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]


def fits(hint: object, value: object) -> bool:
    """Whether a JSON value is what a field of this type may have."""
    return any(fits_one(alternative, value) for alternative in alternatives(hint))


def fits_one(hint: object, value: object) -> bool:
    if isinstance(hint, ForwardRef):
        return True  # the inside of any JSON
    if hint is NoneType:
        return value is None
    if hint is float:
        return type(value) in (int, float)
    if hint is bool or hint is int or hint is str:
        return type(value) is hint
    if get_origin(hint) is list:
        return isinstance(value, list) and all(fits(get_args(hint)[0], item) for item in cast("list[object]", value))
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    assert isinstance(hint, type)
    if issubclass(hint, StrEnum):
        return isinstance(value, str) and value in [member.value for member in hint]
    return isinstance(value, dict) and fits_class(cast("Class", hint), cast("dict[str, object]", value))


def fits_class(cls: Class, value: Mapping[str, object]) -> bool:
    return set(required(cls)) <= value.keys() and all(
        fits(hint, value[name]) for name, hint in hints_of(cls).items() if name in value
    )


def words_for(hint: object) -> str:
    """What an error says that it expected."""
    kinds = [alternative for alternative in alternatives(hint) if alternative is not NoneType]
    null = " or null" if NoneType in alternatives(hint) else ""
    named = {
        bool: "a boolean",
        str: "a string",
        int: "an integer",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    for kind in kinds:
        known = named.get(cast("type", get_origin(kind) or kind))
        if known is not None:
            return known + null
    enum = kinds[0]
    assert isinstance(enum, type)
    assert issubclass(enum, StrEnum)
    return "one of " + ", ".join(f"'{member.value}'" for member in enum) + null


def minimal(cls: Class) -> dict[str, JSON]:
    """The JSON of an instance with its required fields only."""
    document: dict[str, JSON] = {}
    for name in required(cls):
        enums = [kind for kind in alternatives(hints_of(cls)[name]) if kind is not str]
        document[name] = next(iter(cast("type[StrEnum]", enums[0]))).value if enums else "x"
    return document


SERVER, CLIENT = minimal(ServerMessage), minimal(ClientMessage)

READERS: dict[Class, tuple[Callable[[dict[str, JSON]], object], str]] = {
    ServerMessage: (lambda value: decode_server_message(json.dumps(value)), "invalid message from the server: "),
    ClientMessage: (lambda value: decode_client_message(json.dumps(value)), "invalid message to the server: "),
    Command: (
        lambda value: decode_server_message(json.dumps({**SERVER, "actions": [minimal(Command), value]})),
        "invalid message from the server: actions[1].",
    ),
    CommandResult: (
        lambda value: decode_client_message(json.dumps({**CLIENT, "action_results": [minimal(CommandResult), value]})),
        "invalid message to the server: action_results[1].",
    ),
    DeviceInfo: (structure_device_info, "invalid device information: "),
}
"""How an instance of each class is read, and how an error about its fields begins."""

ONE_OF_EACH: list[tuple[str, JSON]] = [
    ("null", None),
    ("the boolean True", True),
    ("the boolean False", False),
    ("the integer 5", 5),
    ("the integer 0", 0),
    ("the number 1.5", 1.5),
    ("the number 5.0", 5.0),
    ("the string 'x'", "x"),
    ("the string '5'", "5"),
    ("the list []", []),
    ("the object {}", {}),
]
"""JSON values of every kind, and how an error names them."""


def means_absent(cls: Class, value: JSON) -> bool:
    """Null stands for an absent key in device information, where no type says so."""
    return cls is DeviceInfo and value is None


WRONG = [
    pytest.param(cls, name, value, f"expected {words_for(hint)}, got {came}", id=f"{cls.__name__}.{name}-{came}")
    for cls in READERS
    for name, hint in hints_of(cls).items()
    for came, value in ONE_OF_EACH
    if not fits(hint, value) and not means_absent(cls, value)
]
RIGHT = [
    pytest.param(cls, name, value, id=f"{cls.__name__}.{name}-{came}")
    for cls in READERS
    for name, hint in hints_of(cls).items()
    for came, value in ONE_OF_EACH
    if fits(hint, value) and not means_absent(cls, value)
]
WRONG_ITEMS = [
    pytest.param(cls, name, value, f"[1]: expected {expected}, got {came}", id=f"{cls.__name__}.{name}-{came}")
    for cls in READERS
    for name, hint in hints_of(cls).items()
    for alternative in alternatives(hint)
    if get_origin(alternative) is list and not fits(hint, [object()])
    for item in get_args(alternative)
    for expected in ["an object" if attrs.has(cast("type", item)) else words_for(item)]
    for came, value in ONE_OF_EACH
    if not fits(item, value) and value != {}
]
ENUMS = [
    pytest.param(cls, name, hint, id=f"{cls.__name__}.{name}")
    for cls in READERS
    for name, hint in hints_of(cls).items()
    if isinstance(hint, type) and issubclass(hint, StrEnum)
]
REQUIRED = [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls in READERS for name in required(cls)]
OPTIONAL = [
    pytest.param(cls, name, id=f"{cls.__name__}.{name}")
    for cls in READERS
    for name, hint in hints_of(cls).items()
    if name not in required(cls) and (fits(hint, None) or cls is DeviceInfo)
]
every_class = pytest.mark.parametrize("cls", READERS, ids=[cls.__name__ for cls in READERS])


# ---- what an error holds


def refusal(read: Callable[[T], object], value: T) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as caught:
        read(value)
    return caught.value


def chain(error: BaseException) -> list[BaseException]:
    """An error and all that lies behind it."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and all(one is not other for other in found):
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def held(error: BaseException, character: str = UNUSUAL) -> int:
    """How often an error holds a character: in what it says, in what it keeps, and in what lies behind it."""
    return sum(
        max(text.count(character) for text in (str(one), repr(one), repr(one.args)))
        + sum(str(value).count(character) for value in vars(one).values())
        for one in chain(error)
    )


# ---- reading: what a message must be


def instance_of(cls: Class, document: dict[str, JSON]) -> object:
    """What is read of a document, out of the message that it may lie in."""
    instance = READERS[cls][0](document)
    match instance:
        case ServerMessage(actions=[_, command]) if cls is Command:
            return command
        case ClientMessage(action_results=[_, result]) if cls is CommandResult:
            return result
        case _:
            return instance


def test_every_class_of_the_wire_is_read_in_these_tests() -> None:
    of_the_wire = {
        cls
        for cls in vars(messages).values()
        if isinstance(cls, type) and attrs.has(cls) and cls.__module__ == messages.__name__
    }
    assert of_the_wire - {TaskResult} == set(READERS)


@every_class
def test_required_fields_are_enough_and_all_else_is_at_its_default(cls: Class) -> None:
    assert instance_of(cls, minimal(cls)) == cls(*minimal(cls).values())


@pytest.mark.parametrize(("cls", "name", "value", "problem"), WRONG)
def test_a_field_of_a_wrong_type_is_refused_by_its_path_what_came_and_what_was_expected(
    cls: Class, name: str, value: JSON, problem: str
) -> None:
    read, beginning = READERS[cls]
    assert str(refusal(read, {**minimal(cls), name: value})) == f"{beginning}{name}: {problem}"


@pytest.mark.parametrize(("cls", "name", "value"), RIGHT)
def test_a_field_of_a_right_type_is_read(cls: Class, name: str, value: JSON) -> None:
    read = getattr(instance_of(cls, {**minimal(cls), name: value}), name)
    assert read == value
    assert type(read) is (float if name == "memory_total_gb" and value is not None else type(value))


@pytest.mark.parametrize(("cls", "name", "value", "problem"), WRONG_ITEMS)
def test_an_item_of_a_wrong_type_is_refused_by_its_place_in_the_list(
    cls: Class, name: str, value: JSON, problem: str
) -> None:
    read, beginning = READERS[cls]
    hint = next(kind for kind in alternatives(hints_of(cls)[name]) if get_origin(kind) is list)
    item = get_args(hint)[0]
    good = minimal(item) if attrs.has(item) else "x"
    assert str(refusal(read, {**minimal(cls), name: [good, value]})) == f"{beginning}{name}{problem}"


@pytest.mark.parametrize(("cls", "name", "enum"), ENUMS)
def test_a_value_that_the_enum_does_not_have_is_refused_and_those_that_it_has_are_named(
    cls: Class, name: str, enum: type[StrEnum]
) -> None:
    read, beginning = READERS[cls]
    first = next(iter(enum)).value
    for value in ("nonsense", "", first.upper(), f"{first} "):
        assert str(refusal(read, {**minimal(cls), name: value})) == (
            f"{beginning}{name}: expected {words_for(enum)}, got the string {value!r}"
        )
    for member in enum:
        assert getattr(instance_of(cls, {**minimal(cls), name: member.value}), name) is member


@pytest.mark.parametrize(("cls", "name"), REQUIRED)
def test_a_missing_required_field_is_refused_by_its_path(cls: Class, name: str) -> None:
    read, beginning = READERS[cls]
    document = minimal(cls)
    del document[name]
    assert str(refusal(read, document)) == f"{beginning}{name} is missing"


@pytest.mark.parametrize(("cls", "name"), OPTIONAL)
def test_null_means_absent(cls: Class, name: str) -> None:
    read, _ = READERS[cls]
    assert read({**minimal(cls), name: None}) == read(minimal(cls))


@pytest.mark.parametrize("cls", [cls for cls in READERS if cls is not DeviceInfo])
def test_fields_that_the_protocol_does_not_name_are_ignored(cls: Class) -> None:
    read, _ = READERS[cls]
    assert read({**minimal(cls), "unknown": {"a": [1]}, "extra": 1, "": None}) == read(minimal(cls))


def test_a_whole_message_is_read() -> None:
    text = (
        '{"type":"command","status":"continue","agent_name":"A","messages":["one","two"],"session_id":"s","response_id":"r",'
        '"actions":[{"tool_name":"t","tool_type":"data_collection","parameters":{"a":[1,2.5,null,true]},"call_id":"c"}],'
        '"result":{"n":18446744073709551617}}'
    )
    assert decode_server_message(text) == ServerMessage(
        ServerMessageType.COMMAND,
        TaskStatus.CONTINUE,
        agent_name="A",
        messages=["one", "two"],
        session_id="s",
        response_id="r",
        actions=[Command("t", ToolType.DATA_COLLECTION, {"a": [1, 2.5, None, True]}, "c")],
        result={"n": 2**64 + 1},
    )


def test_a_class_with_a_field_that_nothing_checks_is_a_mistake_that_is_told() -> None:
    @attrs.frozen
    class Unchecked:
        field: set[int]

    with pytest.raises(TypeError, match=r"no check for fields of type set\[int\]"):
        make_converter().structure({"field": [1]}, Unchecked)


# ---- reading: what is no message at all

DEEP = 100_000
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
    "5,000 digits": (f'{{"x": {"7" * 5_000}}}', "an integer of too many digits"),
    "-5,000 digits": (f'{{"x": [-{"7" * 5_000}]}}', "an integer of too many digits"),
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
    "brackets never closed": ("[" * DEEP, "nested too deep"),
    "braces never closed": ('{"x":' * DEEP, "nested too deep"),
    "a huge string": (f'"{UNUSUAL * 1_000_000}"', "expected an object, got the string "),
    "a huge list": (f"[{','.join(['1'] * 100_000)}]", "expected an object, got the list [1, 1, ...]"),
    "a huge object": (json.dumps({str(n): n for n in range(100_000)}), "type is missing"),
}


@every_decoder
@pytest.mark.parametrize(("text", "problem"), NO_MESSAGE.values(), ids=NO_MESSAGE)
def test_what_is_no_message_is_refused_with_the_reason(
    decode: Callable[[str | bytes], Message], text: str, problem: str
) -> None:
    error = refusal(decode, text)
    assert str(error).split(": ", 1)[1].startswith(problem)
    assert chain(error) == [error]


@every_decoder
@pytest.mark.parametrize("data", [b"", b"12345", b'{"type": "heartbeat", "status": "ok"}', b"\xff" * 1_000_000])
def test_a_binary_frame_is_refused_and_only_its_size_told(
    decode: Callable[[str | bytes], Message], data: bytes
) -> None:
    assert str(refusal(decode, data)).endswith(f": a binary frame of {len(data)} bytes, where AIP expects text")


def test_surrogates_in_proper_pairs_are_read_and_so_is_a_backslash_before_ud() -> None:
    text = '{"type":"task","status":"ok","request_id":"\\ud83d\\ude00","error":"\\uD83D\\uDE00","result":"\\\\ud83d"}'
    message = decode_server_message(text)
    assert (message.error, message.result) == ("😀", "\\ud83d")


def test_an_integer_of_4000_digits_and_the_largest_float_are_exact() -> None:
    digits = "7" * 4_000
    message = decode_server_message(f'{{"type":"task","status":"ok","result":[{digits},1.7976931348623157e308]}}')
    assert message.result == [int(digits), 1.7976931348623157e308]


HUGE = UNUSUAL * 1_000
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
def test_a_refused_field_leaves_at_most_200_characters_of_the_message_in_the_error(
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
def test_a_broken_text_leaves_at_most_200_characters_of_itself_in_the_error(
    decode: Callable[[str | bytes], Message], text: str
) -> None:
    error = refusal(decode, text)
    assert held(error) <= 200
    assert len(str(error)) <= 300


@pytest.mark.parametrize("number", ["7" * 5_000, f"{'7' * 5_000}.7", f"7e{'7' * 5_000}", f"-7e{'7' * 5_000}"])
def test_a_long_number_leaves_at_most_200_of_its_digits_in_the_error(number: str) -> None:
    error = refusal(decode_server_message, f'{{"type": {number}, "status": {number}}}')
    assert held(error, "7") <= 200


# ---- whose reply a broken message was

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
def test_a_broken_message_keeps_its_type_and_ids(text: str) -> None:
    assert ids_of(refusal(decode_server_message, text)) == ("task_end", "s 1", "r-1")


@pytest.mark.parametrize("broken", ['"x":NaN', '"status":5'])
def test_ids_with_escapes_are_kept_as_they_mean(broken: str) -> None:
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
def test_what_is_not_at_the_top_of_the_message_is_no_id_of_it(text: str) -> None:
    assert ids_of(refusal(decode_server_message, text)) == (None, None, None)


@pytest.mark.parametrize("broken", ['"x":NaN', '"status":5'])
@pytest.mark.parametrize(
    ("session", "response", "kept"),
    [(140, 0, (140, 0)), (141, 0, (None, 0)), (0, 140, (0, 140)), (0, 141, (0, None)), (40, 100, (40, 100)),
     (41, 100, (None, 100)), (141, 140, (None, 140)), (140, 141, (140, None))],
)  # fmt: skip
def test_ids_that_are_too_long_are_left_out(
    broken: str, session: int, response: int, kept: tuple[int | None, int | None]
) -> None:
    error = refusal(
        decode_server_message, f'{{"session_id":"{"s" * session}","response_id":"{"r" * response}",{broken}}}'
    )
    assert (error.session_id, error.response_id) == tuple(
        None if length is None else name * length for name, length in zip("sr", kept, strict=True)
    )


@pytest.mark.parametrize("type_", [*ServerMessageType, *ClientMessageType])
def test_every_type_of_message_is_kept(type_: str) -> None:
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


# ---- writing


@pytest.mark.parametrize("cls", DECODERS, ids=[cls.__name__ for cls in DECODERS])
def test_what_is_none_is_not_written_and_the_client_type_always_is(cls: type[Message]) -> None:
    message = DECODERS[cls](json.dumps(minimal(cls)))
    always = {"client_type": "device"} if cls is ClientMessage else {}
    assert json.loads(encode(message)) == {**minimal(cls), **always}


def test_a_message_is_written_without_blanks_and_without_escapes_for_what_utf8_has() -> None:
    message = ClientMessage(
        ClientMessageType.TASK, TaskStatus.CONTINUE, client_type=ClientType.CONSTELLATION, request="Öffne Paint 😀\n"
    )
    expected = '{"type":"task","status":"continue","client_type":"constellation","request":"Öffne Paint 😀\\n"}'
    assert encode(message) == expected


def test_nested_messages_are_written_without_what_is_none_in_them() -> None:
    commands = ServerMessage(
        ServerMessageType.COMMAND,
        TaskStatus.CONTINUE,
        actions=[Command("a", ToolType.ACTION), Command("b", ToolType.DATA_COLLECTION, {"c": None}, "d")],
    )
    results = ClientMessage(
        ClientMessageType.COMMAND_RESULTS,
        TaskStatus.CONTINUE,
        action_results=[CommandResult(ResultStatus.NONE), CommandResult(ResultStatus.FAILURE, "e", [None], "n", "i")],
    )
    assert json.loads(encode(commands))["actions"] == [
        {"tool_name": "a", "tool_type": "action"},
        {"tool_name": "b", "tool_type": "data_collection", "parameters": {"c": None}, "call_id": "d"},
    ]
    assert json.loads(encode(results))["action_results"] == [
        {"status": "none"},
        {"status": "failure", "error": "e", "result": [None], "namespace": "n", "call_id": "i"},
    ]


@pytest.mark.parametrize("value", [0, 0.0, False, "", [], {}])
def test_values_that_are_nothing_much_are_written_all_the_same(value: JSON) -> None:
    message = ServerMessage(ServerMessageType.TASK_END, TaskStatus.COMPLETED, error="", actions=[], result=value)
    written = json.loads(encode(message))
    assert (written["error"], written["actions"]) == ("", [])
    assert repr(written["result"]) == repr(value)


def deep_list() -> object:
    value: list[object] = []
    for _ in range(DEEP):
        value = [value]
    return value


def cyclic_list() -> object:
    value: list[object] = [HUGE]
    value.append(value)
    return value


def cyclic_object() -> object:
    value: dict[str, object] = {HUGE: 1}
    value["self"] = {"again": value}
    return value


UNWRITABLE: dict[str, Callable[[], object]] = {
    "NaN": lambda: math.nan,
    "an infinity": lambda: -math.inf,
    "NaN as a key": lambda: {math.nan: 1},
    "a lone surrogate": lambda: f"{HUGE}\ud83d",
    "a lone surrogate as a key": lambda: {f"{HUGE}\ude00": 1},
    "a list within itself": cyclic_list,
    "an object within itself": cyclic_object,
    "a list nested deep": deep_list,
    "a set": lambda: {HUGE},
    "bytes": lambda: HUGE.encode(),
    "a decimal": lambda: Decimal("1.5"),
    "an object of Python": object,
    "a tuple as a key": lambda: {(HUGE,): 1},
    "an integer of 5,000 digits": lambda: 10**5_000,
    "an integer of 5,000 digits as a key": lambda: {10**5_000: 1},
}

CARRIERS: dict[str, Callable[[JSON], Message]] = {
    "task_end": lambda value: ServerMessage(ServerMessageType.TASK_END, TaskStatus.COMPLETED, result=value),
    "command": lambda value: ServerMessage(
        ServerMessageType.COMMAND, TaskStatus.CONTINUE, actions=[Command("t", ToolType.ACTION, {"a": value})]
    ),
    "register": lambda value: ClientMessage(ClientMessageType.REGISTER, TaskStatus.OK, metadata={"a": [value]}),
    "command_results": lambda value: ClientMessage(
        ClientMessageType.COMMAND_RESULTS,
        TaskStatus.CONTINUE,
        action_results=[CommandResult(ResultStatus.SUCCESS, result=value)],
    ),
    "task": lambda value: ClientMessage(ClientMessageType.TASK, TaskStatus.CONTINUE, request=cast("str", value)),
}


@pytest.mark.parametrize(("name", "message_with"), CARRIERS.items(), ids=CARRIERS)
@pytest.mark.parametrize("make", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_json_cannot_say_is_not_sent_and_the_error_names_the_kind_of_message(
    make: Callable[[], object], name: str, message_with: Callable[[JSON], Message]
) -> None:
    error = refusal(encode, message_with(cast("JSON", make())))
    assert str(error).startswith(f"cannot send a {name} message: ")
    assert chain(error) == [error]
    assert held(error) <= 200
    assert len(str(error)) <= 300


def test_an_error_of_writing_says_what_is_wrong() -> None:
    def problem(value: object) -> str:
        return str(refusal(encode, CARRIERS["task"](cast("JSON", value)))).removeprefix("cannot send a task message: ")

    assert problem("\ud800") == "a lone surrogate in a string, which UTF-8 cannot encode"
    assert problem(deep_list()) == "nested too deep"
    assert "Circular reference" in problem(cyclic_list())
    assert "Out of range float" in problem(math.nan)
    assert "limit" in problem(10**5_000)
    assert "JSON serializable" in problem(object())


# ---- device information

DEVICE: dict[str, JSON] = {
    "device_id": "device_001",
    "platform": "linux",
    "os_version": "6.8",
    "cpu_count": 8,
    "memory_total_gb": 15.63,
    "hostname": "edge-1",
    "ip_address": "10.0.0.1",
    "supported_features": ["gui", "cli"],
    "platform_type": "computer",
    "schema_version": "1.0",
    "custom_metadata": {"rack": 3},
    "tags": ["lab"],
}


def test_device_information_is_read_and_written_as_it_was() -> None:
    info = structure_device_info(DEVICE)
    assert info == DeviceInfo(
        "device_001", Platform.LINUX, "6.8", 8, 15.63, "edge-1", "10.0.0.1", ["gui", "cli"], PlatformType.COMPUTER, "1.0",
        {"rack": 3}, ["lab"],
    )  # fmt: skip
    assert info.platform is Platform.LINUX
    assert info.platform_type is PlatformType.COMPUTER
    assert unstructure_device_info(info) == DEVICE


def test_a_platform_that_the_protocol_does_not_name_is_text() -> None:
    info = structure_device_info({**DEVICE, "platform": "plan9", "platform_type": "Computer"})
    assert (info.platform, info.platform_type) == ("plan9", "Computer")
    assert type(info.platform) is type(info.platform_type) is str


def test_keys_that_the_protocol_does_not_name_are_kept_also_one_called_extra() -> None:
    unknown: dict[str, JSON] = {"gpu": {"count": 2}, "extra": {"extra": 1}, "nothing": None, "": []}
    info = structure_device_info({**DEVICE, **unknown})
    assert info.extra == unknown
    assert unstructure_device_info(info) == {**DEVICE, **unknown}


def test_no_unknown_keys_leave_extra_empty() -> None:
    assert structure_device_info(DEVICE).extra == {}


def test_an_unknown_key_never_takes_the_place_of_a_known_one() -> None:
    info = DeviceInfo("device_001", Platform.LINUX, extra={"device_id": "another", "gpu": 1})
    assert unstructure_device_info(info) == {"device_id": "device_001", "platform": "linux", "gpu": 1}


def test_device_information_that_is_null_is_left_out() -> None:
    nothing: dict[str, JSON] = dict.fromkeys(hints_of(DeviceInfo))
    info = structure_device_info({**nothing, "device_id": "d", "platform": "ios"})
    assert info == DeviceInfo("d", Platform.IOS)
    assert unstructure_device_info(info) == {"device_id": "d", "platform": "ios"}


@pytest.mark.parametrize("name", ["device_id", "platform"])
def test_a_device_without_a_name_or_a_platform_is_refused(name: str) -> None:
    assert (
        str(refusal(structure_device_info, {**DEVICE, name: None})) == f"invalid device information: {name} is missing"
    )


def test_memory_in_whole_gigabytes_is_a_number_too() -> None:
    memory = structure_device_info({**DEVICE, "memory_total_gb": 16}).memory_total_gb
    assert (memory, type(memory)) == (16.0, float)


def test_memory_that_no_float_can_hold_is_refused() -> None:
    error = refusal(structure_device_info, {**DEVICE, "memory_total_gb": 10**400})
    assert str(error).startswith(
        "invalid device information: memory_total_gb: expected a number or null, got the integer 1000"
    )


@pytest.mark.parametrize(("value", "came"), [(None, "null"), ([], "the list []"), ("linux", "the string 'linux'")])
def test_device_information_that_is_no_object_is_refused(value: JSON, came: str) -> None:
    error = refusal(structure_device_info, value)
    assert str(error) == f"invalid device information: expected an object, got {came}"
    assert chain(error) == [error]


# ---- whatever comes

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=10,
)


def instances(cls: Class) -> st.SearchStrategy[attrs.AttrsInstance]:
    """Instances of a class, from the types of its fields."""
    return st.builds(cls, **{name: values_of(hint) for name, hint in get_type_hints(cls).items()})


def values_of(hint: object) -> st.SearchStrategy[object]:
    kinds = alternatives(hint)
    if bool in kinds and float in kinds:
        return json_values
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)]
    # Text that is a member's value is read as the member.
    known = {member.value for enum in enums for member in enum}
    return st.one_of([values_of_one(kind, known) for kind in kinds])


def values_of_one(hint: object, known: set[str]) -> st.SearchStrategy[object]:
    if hint is str:
        return st.text().filter(lambda text: text not in known)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers()
    if hint is NoneType:
        return st.none()
    if get_origin(hint) is list:
        return st.lists(values_of(get_args(hint)[0]), max_size=3)
    if get_origin(hint) is dict:
        # Not with the names of fields: only DeviceInfo.extra minds, whose keys are those that are none.
        keys = st.text().filter(lambda key: key not in hints_of(DeviceInfo)) | st.just("extra")
        return st.dictionaries(keys, json_values, max_size=3)
    assert isinstance(hint, type)
    if issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    return instances(cast("Class", hint))


any_message = st.one_of([instances(cls) for cls in DECODERS])


def exact(value: object) -> str:
    """Tells 1 from 1.0 and from True, and 0.0 from -0.0, which `==` does not."""
    return repr(value)


@given(any_message)
def test_a_message_that_is_written_is_read_as_it_was(message: Message) -> None:
    read = DECODERS[type(message)](encode(message))
    assert read == message
    assert exact(read) == exact(message)


@given(instances(DeviceInfo))
def test_device_information_that_is_written_is_read_as_it_was(info: DeviceInfo) -> None:
    answer = ServerMessage(ServerMessageType.DEVICE_INFO_RESPONSE, TaskStatus.OK, result=unstructure_device_info(info))
    read = structure_device_info(decode_server_message(encode(answer)).result)
    assert read == info
    assert exact(read) == exact(info)


def outcome(read: Callable[[T], attrs.AttrsInstance], value: T) -> attrs.AttrsInstance | InvalidMessage:
    """What is read, or the refusal. Whatever else comes out than `InvalidMessage` fails the test."""
    try:
        return read(value)
    except InvalidMessage as error:
        refused = error
    assert len(str(refused)) <= 300
    assert chain(refused) == [refused]
    return refused


any_class = st.sampled_from(list(DECODERS))


@given(any_class, st.text() | st.text('{}[]":,\\ud8eEN+-.0123 tfn') | st.binary())
@example(ServerMessage, '{"type":"task","status":"ok","result":"\\ud83d\\ude00"}')
def test_any_text_is_a_message_or_is_refused(cls: type[Message], text: str | bytes) -> None:
    assert isinstance(outcome(DECODERS[cls], text), cls | InvalidMessage)


@given(any_message, st.data())
def test_a_damaged_message_is_a_message_or_is_refused(message: Message, data: st.DataObject) -> None:
    text = encode(message)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 10)))
    instead = data.draw(
        st.sampled_from(["", '"', "\\", "\\ud800", "NaN", "1e999", "{", "]", "null,"]) | st.text(max_size=3)
    )
    damaged = text[:start] + instead + text[end:]
    assert isinstance(outcome(DECODERS[type(message)], damaged), type(message) | InvalidMessage)


field_names = st.sampled_from(sorted({name for cls in READERS for name in get_type_hints(cls)}))
enum_values = st.sampled_from(
    sorted(
        {
            member.value
            for cls in READERS
            for hint in hints_of(cls).values()
            for enum in alternatives(hint)
            if isinstance(enum, type) and issubclass(enum, StrEnum)
            for member in enum
        }
    )
)
objects = st.dictionaries(field_names | st.text(max_size=3), enum_values | json_values, max_size=6)
lists_of_objects = st.dictionaries(
    st.sampled_from(["actions", "action_results", "messages"]), st.lists(objects, max_size=2)
)


@given(any_class, any_message | st.none(), lists_of_objects, objects)
def test_an_object_is_a_message_exactly_if_its_fields_are_what_the_class_says(
    cls: type[Message], message: Message | None, lists: dict[str, JSON], changes: dict[str, JSON]
) -> None:
    written: dict[str, JSON] = {} if message is None else json.loads(encode(message))
    document = {**written, **lists, **changes}
    read = outcome(DECODERS[cls], json.dumps(document))
    assert isinstance(read, cls) == fits_class(cls, document)
    if isinstance(read, cls):
        assert exact(DECODERS[cls](encode(read))) == exact(read)


@given(json_values | objects)
@example({"device_id": "d", "platform": "linux", "platform_type": "computer"})
def test_any_json_is_device_information_or_is_refused(value: JSON) -> None:
    info = outcome(structure_device_info, value)
    if isinstance(info, DeviceInfo):
        assert exact(structure_device_info(unstructure_device_info(info))) == exact(info)


# ---- the recordings


def recorded(side: str) -> list[str]:
    """The texts that one side sent."""
    return [frame.text for name in NAMES for frame in text_frames(name) if frame.sender == side]


def without_nulls(text: str) -> dict[str, object]:
    """A message's JSON without the nulls that are the same as nothing: those of its own fields, not those within JSON values."""
    members: dict[str, object] = {name: value for name, value in json.loads(text).items() if value is not None}
    for name in ("actions", "action_results"):
        if name in members:
            items = cast("list[dict[str, object]]", members[name])
            members[name] = [{key: value for key, value in item.items() if value is not None} for item in items]
    return members


def broken_messages() -> list[str]:
    """The first three that the constellation sends in this recording; its fourth is whole, and refused for its client_id."""
    return [frame.text for frame in text_frames("bad_messages") if frame.sender == "constellation"][:3]


def test_there_are_recordings() -> None:
    assert (len(recorded("server")), len(recorded("constellation")), len(recorded("device"))) == (54, 32, 9)


def test_every_recorded_message_of_the_server_is_read_and_written_as_it_was() -> None:
    for text in recorded("server"):
        assert json.loads(encode(decode_server_message(text))) == without_nulls(text)


def test_every_recorded_message_to_the_server_is_read_and_written_as_it_was_but_the_broken_ones() -> None:
    for text in recorded("constellation") + recorded("device"):
        if text not in broken_messages():
            assert json.loads(encode(decode_client_message(text))) == without_nulls(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    list(
        zip(
            broken_messages(),
            ["not JSON: ", "expected an object, got the list []", "type: expected one of "],
            strict=True,
        )
    ),
)
def test_the_recorded_broken_messages_to_the_server_are_refused(text: str, problem: str) -> None:
    assert str(refusal(decode_client_message, text)).startswith(f"invalid message to the server: {problem}")


def test_the_recorded_device_information_is_read() -> None:
    answers = [decode_server_message(text) for text in recorded("server") if '"device_info_response"' in text]
    info = structure_device_info(answers[0].result)
    assert (info.device_id, info.platform, info.cpu_count, info.memory_total_gb) == (
        "device_001",
        Platform.LINUX,
        8,
        15.63,
    )


# ---- what the messages and the errors are to their users


def test_the_result_of_a_completed_task_unwraps_to_what_the_session_gave_back() -> None:
    assert TaskResult("t1", "device_001", TaskStatus.COMPLETED, {"a": 1}).unwrap() == {"a": 1}


@pytest.mark.parametrize(
    ("error", "why"), [("no such window", "no such window"), (None, "it ended in its error state")]
)
def test_the_result_of_a_failed_task_unwraps_to_an_error_that_has_the_result(error: str | None, why: str) -> None:
    with pytest.raises(TaskFailed) as caught:
        TaskResult("t1", "device_001", TaskStatus.FAILED, {"a": 1}, error).unwrap()
    assert str(caught.value) == f"task t1 failed on device 'device_001': {why}"
    assert caught.value.result == {"a": 1}


def test_errors_carry_what_a_program_needs_and_are_trios_own_kinds() -> None:
    lost = ConnectionLost("it broke", reason="reset", code=1001)
    assert (lost.reason, lost.code) == ("reset", 1001)
    assert ConnectionLost("it broke").code == 1006
    assert HandshakeRejected("no", status_code=403).status_code == 403
    assert issubclass(ConnectionLost, trio.BrokenResourceError)
    assert issubclass(ConnectTimeout, trio.TooSlowError)
    assert issubclass(RequestTimeout, trio.TooSlowError)


def test_an_id_that_is_cut_off_is_none() -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode_server_message('{"type":"device_info_response","status":"ok","response_id":"device_info_1')
    assert (caught.value.type, caught.value.response_id) == ("device_info_response", None)


def test_an_id_that_is_cut_off_where_the_search_ends_is_none() -> None:
    head = '{"type":"task_end","status":"ok","error":"'
    filling = "x" * (65_536 - len(head) - len('","session_id":"abc'))
    with pytest.raises(InvalidMessage) as caught:
        decode_server_message(f'{head}{filling}","session_id":"abcdef","result":NaN}}')
    assert (caught.value.type, caught.value.session_id) == ("task_end", None)


def test_an_item_that_is_no_message_part_cannot_be_sent() -> None:
    message = ServerMessage(ServerMessageType.COMMAND, TaskStatus.CONTINUE, actions=cast("list[Command]", [5]))
    with pytest.raises(InvalidMessage, match="cannot send a command message"):
        encode(message)


def test_device_information_with_an_integer_that_python_does_not_write_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="very many digits"):
        structure_device_info({"device_id": "d", "platform": "linux", "hostname": 10**5000})


def _request(timestamp: str, request_id: str) -> ClientMessage:
    return ClientMessage(
        ClientMessageType.DEVICE_INFO_REQUEST,
        TaskStatus.OK,
        client_id='100% "ü"',
        timestamp=timestamp,
        request_id=request_id,
        metadata={"%(timestamp)s": "%"},
    )


def test_a_templates_text_is_the_one_that_its_message_has() -> None:
    template = Template(_request("", ""), "timestamp", "request_id")
    for timestamp, request_id in (("2026-01-02", "a%sb"), ("2027", "2")):
        text = template.text(timestamp=timestamp, request_id=request_id)
        assert text == encode(_request(timestamp, request_id))


@pytest.mark.parametrize("before", ["", " ", "\n\t"])
@pytest.mark.parametrize("value", ['{"type":"heartbeat","status":"ok"}', "{}", "{", '"x"', "[]", ""])
@pytest.mark.parametrize("after", ["", " ", "\r\n", "x", " }", "\f", " {}"])
def test_white_space_around_a_message_is_json_s_and_what_else_is_there_is_an_error_in_json_s_words(
    before: str, value: str, after: str
) -> None:
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
