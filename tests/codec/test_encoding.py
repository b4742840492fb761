"""Messages are written as compact JSON, and unwritable values are refused."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import pytest

from galaxy_trio._codec.codec import Template, encode
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    ClientType,
    Command,
    CommandResult,
    ResultStatus,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
    ToolType,
)
from tests.codec.support.refusals import HUGE, chain, held, refusal
from tests.codec.support.wire_classes import DECODERS, DEEP, Message, minimal

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("cls", DECODERS, ids=[cls.__name__ for cls in DECODERS])
def test_none_is_not_written_but_the_client_type_always_is(cls: type[Message]) -> None:
    message = DECODERS[cls](json.dumps(minimal(cls)))
    always = {"client_type": "device"} if cls is ClientMessage else {}
    assert json.loads(encode(message)) == {**minimal(cls), **always}


def test_a_message_is_written_without_blanks_or_needless_escapes() -> None:
    message = ClientMessage(
        ClientMessageType.TASK, TaskStatus.CONTINUE, client_type=ClientType.CONSTELLATION, request="Öffne Paint 😀\n"
    )
    expected = '{"type":"task","status":"continue","client_type":"constellation","request":"Öffne Paint 😀\\n"}'
    assert encode(message) == expected


def test_nested_parts_are_written_without_their_none_fields() -> None:
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
def test_falsy_values_other_than_none_are_written(value: JSON) -> None:
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
def test_an_unwritable_value_is_refused_with_the_type_of_the_message(
    make: Callable[[], object], name: str, message_with: Callable[[JSON], Message]
) -> None:
    error = refusal(encode, message_with(cast("JSON", make())))
    assert str(error).startswith(f"cannot send a {name} message: ")
    assert chain(error) == [error]
    assert held(error) <= 200
    assert len(str(error)) <= 300


def test_an_error_about_an_unwritable_value_names_the_problem() -> None:
    def problem(value: object) -> str:
        return str(refusal(encode, CARRIERS["task"](cast("JSON", value)))).removeprefix("cannot send a task message: ")

    assert problem("\ud800") == "a lone surrogate in a string, which UTF-8 cannot encode"
    assert problem(deep_list()) == "nested too deep"
    assert "Circular reference" in problem(cyclic_list())
    assert "Out of range float" in problem(math.nan)
    assert "limit" in problem(10**5_000)
    assert "JSON serializable" in problem(object())


def test_a_list_item_that_is_not_a_message_part_is_not_written() -> None:
    message = ServerMessage(ServerMessageType.COMMAND, TaskStatus.CONTINUE, actions=cast("list[Command]", [5]))
    with pytest.raises(InvalidMessage, match="cannot send a command message"):
        encode(message)


def _request(timestamp: str, request_id: str) -> ClientMessage:
    return ClientMessage(
        ClientMessageType.DEVICE_INFO_REQUEST,
        TaskStatus.OK,
        client_id='100% "ü"',
        timestamp=timestamp,
        request_id=request_id,
        metadata={"%(timestamp)s": "%"},
    )


def test_a_template_writes_the_same_text_as_encode() -> None:
    template = Template(_request("", ""), "timestamp", "request_id")
    for timestamp, request_id in (("2026-01-02", "a%sb"), ("2027", "2")):
        text = template.text(timestamp=timestamp, request_id=request_id)
        assert text == encode(_request(timestamp, request_id))
