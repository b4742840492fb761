"""Any generated message survives writing and reading; any other text is refused."""

from __future__ import annotations

import json
from enum import StrEnum
from types import NoneType
from typing import TYPE_CHECKING, TypeVar, cast, get_args, get_origin, get_type_hints

from hypothesis import example, given
from hypothesis import strategies as st

from galaxy_trio._codec.codec import decode_server_message, encode, structure_device_info, unstructure_device_info
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import JSON, DeviceInfo, ServerMessage, ServerMessageType, TaskStatus
from tests.codec.support.refusals import chain
from tests.codec.support.wire_classes import DECODERS, READERS, Class, Message, alternatives, fits_class, hints_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import attrs

T = TypeVar("T")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=10,
)


def instances(cls: Class) -> st.SearchStrategy[attrs.AttrsInstance]:
    """Generate instances of a class from the types of its fields."""
    return st.builds(cls, **{name: values_of(hint) for name, hint in get_type_hints(cls).items()})


def values_of(hint: object) -> st.SearchStrategy[object]:
    kinds = alternatives(hint)
    if bool in kinds and float in kinds:
        return json_values
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)]
    # Text that equals a member's value is read as the member.
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
        # Not the names of fields: the keys of DeviceInfo.extra are those that are no field.
        keys = st.text().filter(lambda key: key not in hints_of(DeviceInfo)) | st.just("extra")
        return st.dictionaries(keys, json_values, max_size=3)
    assert isinstance(hint, type)
    if issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    return instances(cast("Class", hint))


any_message = st.one_of([instances(cls) for cls in DECODERS])


def exact(value: object) -> str:
    """Return a text that distinguishes 1, 1.0 and True, and 0.0 and -0.0, which `==` does not."""
    return repr(value)


@given(any_message)
def test_a_message_survives_writing_and_reading(message: Message) -> None:
    read = DECODERS[type(message)](encode(message))
    assert read == message
    assert exact(read) == exact(message)


@given(instances(DeviceInfo))
def test_device_information_survives_writing_and_reading(info: DeviceInfo) -> None:
    answer = ServerMessage(ServerMessageType.DEVICE_INFO_RESPONSE, TaskStatus.OK, result=unstructure_device_info(info))
    read = structure_device_info(decode_server_message(encode(answer)).result)
    assert read == info
    assert exact(read) == exact(info)


def outcome(read: Callable[[T], attrs.AttrsInstance], value: T) -> attrs.AttrsInstance | InvalidMessage:
    """Return the instance or the refusal. Any exception other than `InvalidMessage` fails the test."""
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
def test_any_text_is_read_or_refused(cls: type[Message], text: str | bytes) -> None:
    assert isinstance(outcome(DECODERS[cls], text), cls | InvalidMessage)


@given(any_message, st.data())
def test_a_damaged_message_is_read_or_refused(message: Message, data: st.DataObject) -> None:
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
def test_an_object_is_a_message_exactly_if_its_fields_fit_the_class(
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
def test_any_json_is_read_as_device_information_or_refused(value: JSON) -> None:
    info = outcome(structure_device_info, value)
    if isinstance(info, DeviceInfo):
        assert exact(structure_device_info(unstructure_device_info(info))) == exact(info)
