"""Every field of every message is checked by its type."""

from __future__ import annotations

from enum import StrEnum
from typing import cast, get_args, get_origin

import attrs
import pytest

from galaxy_trio import messages
from galaxy_trio._codec.codec import decode_server_message
from galaxy_trio._codec.converters import make_converter
from galaxy_trio.messages import (
    JSON,
    Command,
    DeviceInfo,
    ServerMessage,
    ServerMessageType,
    TaskResult,
    TaskStatus,
    ToolInfo,
    ToolType,
)
from tests.codec.support.refusals import refusal
from tests.codec.support.wire_classes import (
    ONE_OF_EACH,
    READERS,
    Class,
    alternatives,
    every_class,
    fits,
    hints_of,
    instance_of,
    means_absent,
    minimal,
    required,
    words_for,
)

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


def test_these_tests_cover_every_class_of_the_wire() -> None:
    wire_classes = {
        cls
        for cls in vars(messages).values()
        if isinstance(cls, type) and attrs.has(cls) and cls.__module__ == messages.__name__
    }
    # A TaskResult is made of a message, and test_tool_list.py has the ToolInfo.
    assert wire_classes - {TaskResult, ToolInfo} == set(READERS)


@every_class
def test_a_message_with_only_its_required_fields_is_read_with_defaults(cls: Class) -> None:
    assert instance_of(cls, minimal(cls)) == cls(*minimal(cls).values())


@pytest.mark.parametrize(("cls", "name", "value", "problem"), WRONG)
def test_an_error_about_a_wrong_type_names_the_path_the_value_and_the_expectation(
    cls: Class, name: str, value: JSON, problem: str
) -> None:
    read, beginning = READERS[cls]
    assert str(refusal(read, {**minimal(cls), name: value})) == f"{beginning}{name}: {problem}"


@pytest.mark.parametrize(("cls", "name", "value"), RIGHT)
def test_a_field_with_the_right_type_is_read(cls: Class, name: str, value: JSON) -> None:
    read = getattr(instance_of(cls, {**minimal(cls), name: value}), name)
    assert read == value
    assert type(read) is (float if name == "memory_total_gb" and value is not None else type(value))


@pytest.mark.parametrize(("cls", "name", "value", "problem"), WRONG_ITEMS)
def test_an_error_about_a_wrong_list_item_names_its_index(cls: Class, name: str, value: JSON, problem: str) -> None:
    read, beginning = READERS[cls]
    hint = next(kind for kind in alternatives(hints_of(cls)[name]) if get_origin(kind) is list)
    item = get_args(hint)[0]
    good = minimal(item) if attrs.has(item) else "x"
    assert str(refusal(read, {**minimal(cls), name: [good, value]})) == f"{beginning}{name}{problem}"


@pytest.mark.parametrize(("cls", "name", "enum"), ENUMS)
def test_an_error_about_an_unknown_enum_value_names_all_members(cls: Class, name: str, enum: type[StrEnum]) -> None:
    read, beginning = READERS[cls]
    first = next(iter(enum)).value
    for value in ("nonsense", "", first.upper(), f"{first} "):
        assert str(refusal(read, {**minimal(cls), name: value})) == (
            f"{beginning}{name}: expected {words_for(enum)}, got the string {value!r}"
        )
    for member in enum:
        assert getattr(instance_of(cls, {**minimal(cls), name: member.value}), name) is member


@pytest.mark.parametrize(("cls", "name"), REQUIRED)
def test_an_error_about_a_missing_field_names_its_path(cls: Class, name: str) -> None:
    read, beginning = READERS[cls]
    document = minimal(cls)
    del document[name]
    assert str(refusal(read, document)) == f"{beginning}{name} is missing"


@pytest.mark.parametrize(("cls", "name"), OPTIONAL)
def test_null_means_absent(cls: Class, name: str) -> None:
    read, _ = READERS[cls]
    assert read({**minimal(cls), name: None}) == read(minimal(cls))


@pytest.mark.parametrize("cls", [cls for cls in READERS if cls is not DeviceInfo])
def test_unknown_fields_are_ignored(cls: Class) -> None:
    read, _ = READERS[cls]
    assert read({**minimal(cls), "unknown": {"a": [1]}, "extra": 1, "": None}) == read(minimal(cls))


def test_a_message_with_nested_parts_is_read() -> None:
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


def test_a_class_with_a_field_type_without_a_check_is_refused() -> None:
    @attrs.frozen
    class Unchecked:
        field: set[int]

    with pytest.raises(TypeError, match=r"no check for fields of type set\[int\]"):
        make_converter().structure({"field": [1]}, Unchecked)
