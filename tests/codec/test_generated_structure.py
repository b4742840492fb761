"""The generated structure functions agree with the strict ones on every value."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, cast

import attrs
import pytest
from hypothesis import strategies as st

from galaxy_trio._codec import codec
from galaxy_trio._codec.converters import make_converter
from galaxy_trio._codec.generated_structure import generate_structure
from galaxy_trio._codec.strict_types import Mismatch
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    ClientType,
    Command,
    CommandResult,
    DeviceInfo,
    Platform,
    ServerMessage,
    TaskStatus,
)
from tests.support.fuzzing import EVERYTHING, damaged, fuzz

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import AttrsInstance

_strict = make_converter()
_CLASSES: Final[list[type[AttrsInstance]]] = [
    ServerMessage,
    ClientMessage,
    Command,
    CommandResult,
    DeviceInfo,
]
_GENERATED: Final[dict[type[AttrsInstance], Callable[[object], object]]] = {
    cls: generate_structure(cls, keeps_extra=cls is DeviceInfo) for cls in _CLASSES
}
_OBJECTS: Final = [text for text in EVERYTHING if text.startswith("{") and text.endswith("}")]
_SHALLOW: Final = 300
"""The number of brackets up to which Python can show messages with any stack."""
_VALUES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 1),
    st.sampled_from([10**299, 10**300, -(10**300), 2**64, 1e300, 0.5, -0.0]),
    st.sampled_from(["", "x", "ok", "register", "command", "device", "action", "success", "linux", "computer", "OK"]),
    st.lists(st.sampled_from(["x", 1, None])),
    st.dictionaries(st.sampled_from(["x", "error"]), st.none() | st.integers()),
)


def _members(cls: type[AttrsInstance], values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    names = [field.name for field in attrs.fields(cls)]
    return st.dictionaries(st.sampled_from([*names, "unknown", "null"]), values)


@st.composite
def _nearly(draw: st.DrawFn, cls: type[AttrsInstance]) -> object:
    """Draw an object of a class, usually with some invalid members."""
    nested = _VALUES | st.lists(_members(Command, _VALUES)) | st.lists(_members(CommandResult, _VALUES))
    return {**draw(st.sampled_from(_RIGHT[cls])), **draw(_members(cls, nested))}


_COMMAND: Final[dict[str, JSON]] = {"tool_name": "click", "tool_type": "action", "parameters": {"x": 1}, "call_id": "1"}
_RIGHT: Final[dict[type[AttrsInstance], list[dict[str, JSON]]]] = {
    ServerMessage: [{"type": "command", "status": "ok", "actions": [_COMMAND], "messages": ["x"]}, {}],
    ClientMessage: [{"type": "task", "status": "ok", "action_results": [{"status": "success"}]}, {}],
    Command: [_COMMAND, {}],
    CommandResult: [{"status": "failure", "error": "x"}, {}],
    DeviceInfo: [{"device_id": "d", "platform": "linux", "memory_total_gb": 8, "tags": ["x"]}, {}],
}


def _check_agreement(cls: type[AttrsInstance], value: object) -> None:
    generated = _GENERATED[cls](value)
    if generated is None:
        return
    strict: object = _strict.structure(value, cls)
    assert generated == strict
    # Compared by repr too: 1 equals 1.0 and True, and an enum member equals its text.
    assert repr(generated) == repr(strict)


@fuzz(300, case=st.sampled_from(_CLASSES).flatmap(lambda cls: st.tuples(st.just(cls), _nearly(cls) | _VALUES)))
def test_the_strict_function_agrees_with_everything_that_the_generated_one_accepts(
    case: tuple[type[AttrsInstance], object],
) -> None:
    _check_agreement(*case)


_AWKWARD: Final[list[object]] = [
    *(None, True, False, 0, 1, -1, 10**299, 10**300, -(10**300), 2**64, 1e300, 0.5),
    *("", "x", "ok", "register", "command", "device", "action", "success", "linux", "computer", "OK"),
    *(
        [],
        ["x"],
        ["x", 1],
        [None],
        {},
        {"x": 1},
        [{}],
        [{"tool_name": "click", "tool_type": "action"}],
        [{"status": "success"}],
    ),
]


@pytest.mark.parametrize("cls", _CLASSES)
def test_both_functions_agree_on_awkward_values_of_each_field(cls: type[AttrsInstance]) -> None:
    for field in attrs.fields(cls):
        for value in _AWKWARD:
            members: dict[str, object] = {**_RIGHT[cls][0], field.name: value}
            _check_agreement(cls, members)


@fuzz(200, text=damaged(EVERYTHING), cls=st.sampled_from(_CLASSES))
def test_both_functions_agree_on_damaged_recordings(text: str, cls: type[AttrsInstance]) -> None:
    if text.count("[") + text.count("{") > _SHALLOW:
        return
    try:
        value: object = json.loads(text)
    except ValueError:
        return
    _check_agreement(cls, value)
    if isinstance(value, dict):
        _check_agreement(DeviceInfo, cast("dict[str, object]", value).get("result"))


def _strictly(value: object, cls: type[AttrsInstance]) -> object:
    """Return the instance, or the error's text."""
    try:
        return _strict.structure(value, cls)
    except Mismatch as mismatch:
        return str(mismatch)


_DECODERS: Final[dict[type[AttrsInstance], tuple[Callable[[str], object], str]]] = {
    ServerMessage: (codec.decode_server_message, "message from the server"),
    ClientMessage: (codec.decode_client_message, "message to the server"),
}


@fuzz(300, case=st.sampled_from(list(_DECODERS)).flatmap(lambda cls: st.tuples(st.just(cls), _nearly(cls) | _VALUES)))
def test_the_codecs_errors_are_those_of_the_strict_function(case: tuple[type[AttrsInstance], object]) -> None:
    cls, value = case
    decode, kind = _DECODERS[cls]
    text = json.dumps(value)
    too_long = re.search(r"[0-9]{301}", re.sub(r"\"(\\.|[^\"])*\"", "", text))
    strict = "an integer of more than 300 digits" if too_long else _strictly(json.loads(text), cls)
    try:
        outcome: object = decode(text)
    except InvalidMessage as invalid:
        outcome = str(invalid).removeprefix(f"invalid {kind}: ")
    assert repr(outcome) == repr(strict)


@pytest.mark.parametrize("cls", [ServerMessage, ClientMessage])
@pytest.mark.parametrize("text", _OBJECTS, ids=range(len(_OBJECTS)))
def test_the_generated_function_accepts_every_valid_recorded_message(text: str, cls: type[AttrsInstance]) -> None:
    value = json.loads(text)
    strict = _strictly(value, cls)
    assert _GENERATED[cls](value) == (None if isinstance(strict, str) else strict)


def test_an_absent_member_gets_its_default_and_null_is_left_to_the_strict_function() -> None:
    structure = generate_structure(ClientMessage)
    message = {"type": "register", "status": "ok"}
    assert structure(message) == ClientMessage(ClientMessageType.REGISTER, TaskStatus.OK, ClientType.DEVICE)
    assert structure({**message, "client_type": None}) is None


def test_device_information_has_fresh_collections_and_keeps_unknown_members() -> None:
    structure = generate_structure(DeviceInfo, keeps_extra=True)
    one, other = (structure({"device_id": "d", "platform": "linux", "tags": None, "gpu": None}) for _ in range(2))
    assert one == other == DeviceInfo("d", Platform.LINUX, extra={"gpu": None})
    assert one is not None
    assert other is not None
    assert one.tags is not other.tags
    assert one.custom_metadata is not other.custom_metadata


def test_a_class_with_a_field_type_without_a_check_is_refused() -> None:
    @attrs.frozen
    class Odd:
        pair: tuple[int, int]

    @attrs.frozen
    class Either:
        value: int | str

    for cls in (Odd, Either):
        with pytest.raises(TypeError, match="no generated check for fields of type"):
            generate_structure(cls)
