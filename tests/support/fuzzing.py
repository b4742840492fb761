"""Fuzz tests with damaged recordings, for a number of examples or for a given time.

All fuzz tests of a run share the minutes in ``GALAXY_TRIO_FUZZ_MINUTES``. Without it, each makes a few examples.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar, cast

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galaxy_trio._codec.codec import decode_server_message
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import ClientMessageType, ResultStatus, ServerMessage, ServerMessageType, TaskStatus
from tests.connection.support.recordings import NAMES, Frame, text_frames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

T = TypeVar("T")

MINUTES: Final = os.environ.get("GALAXY_TRIO_FUZZ_MINUTES")
_BATCH: Final = 200
"""Examples between two checks of the time."""
_tests: list[str] = []


def fuzz(examples: int, **strategies: st.SearchStrategy[object]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a test from a check: with this many examples, or as many as there is time for.

    The time is checked only between examples, because Hypothesis repeats a failing example to shrink it.
    """

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        _tests.append(check.__name__)
        made = 0

        @functools.wraps(check)
        def count(**arguments: object) -> None:
            nonlocal made
            made += 1
            check(**arguments)

        run = settings(
            max_examples=examples if MINUTES is None else _BATCH,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        )(given(**strategies)(count))

        def test() -> None:
            began = time.monotonic()
            seconds = 0.0 if MINUTES is None else float(MINUTES) * 60 / len(_tests)
            run()
            while time.monotonic() < began + seconds:
                run()
            if seconds:
                print(f"\n{check.__name__}: {made:,} examples in {time.monotonic() - began:.0f} s")  # noqa: T201

        # Not with `wraps`: pytest would look for fixtures with the names of the check's arguments.
        test.__name__ = test.__qualname__ = check.__name__
        test.__module__, test.__doc__ = check.__module__, check.__doc__
        # Hypothesis' plugin marks only the functions that it has decorated.
        return pytest.mark.hypothesis(test)

    return decorate


def simulate(scenario: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run a scenario on an autojumping clock. A scenario that hangs raises after a virtual week."""

    async def bounded() -> T:
        with trio.fail_after(7 * 24 * 3600):
            return await scenario(*arguments)

    return trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def errors_logged() -> Generator[list[str]]:
    """Collect the package's logged errors, which show bugs that it caught."""
    errors: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    handler = Keep(logging.ERROR)
    logger = logging.getLogger("galaxy_trio")
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)


FRAMES: Final[dict[str, list[Frame]]] = {name: text_frames(name) for name in NAMES}


def recorded(*, sender: str | None = None, receiver: str | None = None) -> list[str]:
    """Return the distinct texts between a sender and a receiver."""
    return list(
        dict.fromkeys(
            frame.text
            for frames in FRAMES.values()
            for frame in frames
            if sender in (None, frame.sender) and receiver in (None, frame.receiver)
        )
    )


FROM_SERVER: Final = recorded(sender="server")
FOR_DEVICE: Final = [
    *recorded(sender="server", receiver="device"),
    '{"type":"task","status":"continue","user_request":"echo:dispatched","session_id":"s","task_name":"t"}',
]
TO_SERVER: Final = recorded(receiver="server")
EVERYTHING: Final = FROM_SERVER + TO_SERVER


class Members(list["tuple[str, object]"]):
    """The members of an object, which may repeat a key."""


@attrs.frozen
class Raw:
    """JSON, or a text like it, written literally: `json` cannot write it."""

    text: str


def _read(text: str) -> object:
    return json.loads(text, object_pairs_hook=Members)


def _write(value: object) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(key)}:{_write(member)}" for key, member in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, cast("list[object]", value))) + "]"
    return json.dumps(value)


def _nested(depth: int, opening: str = "[", innermost: str = "", closing: str = "]") -> str:
    return opening * depth + innermost + closing * depth


def _places(value: object) -> list[tuple[list[object], int]]:
    """Return the paths of all members and items of a value."""
    if not isinstance(value, list):
        return []
    items = cast("list[object]", value)
    places: list[tuple[list[object], int]] = []
    for index in range(len(items)):
        places.append((items, index))
        places.extend(_places(_value(items, index)))
    return places


def _member(item: object) -> tuple[str, object]:
    """Return an item of `Members` with its type."""
    return cast("tuple[str, object]", item)


def _value(inside: list[object], index: int) -> object:
    return _member(inside[index])[1] if isinstance(inside, Members) else inside[index]


def _members_of(text: str) -> list[tuple[str, object]]:
    """Return all members of a text's objects, at any depth."""
    try:
        places = _places(_read(text))
    except (ValueError, RecursionError):
        return []
    return [_member(inside[index]) for inside, index in places if isinstance(inside, Members)]


def _type_of(text: str) -> str:
    return next((value for key, value in _members_of(text) if key == "type" and type(value) is str), "")


def _strings_by_key() -> dict[str, list[object]]:
    """Return the recorded strings for each key, and the enum values that may also be there."""
    strings: dict[str, list[object]] = {}
    for text in EVERYTHING:
        for key, value in _members_of(text):
            if type(value) is str and value not in strings.setdefault(key, []):
                strings[key].append(value)
    for enum in (ClientMessageType, ServerMessageType):
        strings["type"] += [member.value for member in enum if member.value not in strings["type"]]
    for status in (TaskStatus, ResultStatus):
        strings["status"] += [member.value for member in status if member.value not in strings["status"]]
    return strings


_STRINGS: Final = _strings_by_key()
_KEYS: Final = sorted(_STRINGS)
_RAW: Final = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "5e-324", "1e-999", "-0.0", "-0", "1E5", "01", "+1"),
    *("9" * 300, "9" * 4_000, "-" + "9" * 4_400, "9" * 5_000, f"0.{'3' * 5_000}", f"1e{'9' * 500}"),
    *(
        r'"\ud800"',
        r'"\udc00\ud800"',
        r'"\ud83d\ude00"',
        r'"\u0000"',
        r'"\uD8"',
        '"\x00"',
        '"\x7f\u2028"',
        r'"\\ud800"',
    ),
    *("true", "null", "None", "'a'", "", "{}", "[]", '{"":{"":[]}}', '{"a":1,"a":2}', "/**/1", "[1,]", "undefined"),
    f'"{"x" * 70_000}"',
    '"' + "\U0001f600" * 30_000 + '"',
    f"[{'0,' * 20_000}0]",
    "{" + ",".join(f'"{number}":{number}' for number in range(5_000)) + "}",
    *(_nested(depth) for depth in (100, 500, 5_000, 100_000)),
    _nested(300, '{"a":', "0", "}"),
    _nested(20_000, '{"a":', "0", "}"),
    "[" * 100_000,
]
_small_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=6,
)
_any_value = st.one_of(
    st.sampled_from(sorted({str(string) for strings in _STRINGS.values() for string in strings})),
    _small_json,
    st.sampled_from(_RAW).map(Raw),
    # Around the limit.
    st.integers(490, 510).map(lambda depth: Raw(_nested(depth))),
)


@st.composite
def _restructured(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Drop, double, rename, wrap, copy or replace members and items."""
    text = draw(texts)
    try:
        whole = _read(text)
        for _ in range(draw(st.integers(1, 3))):
            place = _draw_place(draw, whole)
            if place is not None:
                _change(draw, whole, *place)
        return _write(whole)
    except (ValueError, RecursionError):
        # An earlier damage made it invalid or too deep.
        return text


def _draw_place(draw: st.DrawFn, value: object) -> tuple[list[object], int] | None:
    """Draw a path, half of the time at the top level, which matters most, and mostly to values that are not null."""
    if not isinstance(value, list) or not value:
        return None
    inside = cast("list[object]", value)
    telling = [index for index in range(len(inside)) if _value(inside, index) is not None] or [0]
    index = draw(st.sampled_from(telling) | st.integers(0, len(inside) - 1))
    deeper = _draw_place(draw, _value(inside, index)) if draw(st.booleans()) else None
    return deeper or (inside, index)


def _change(draw: st.DrawFn, whole: object, inside: list[object], index: int) -> None:
    """Change the value at a path."""
    in_object = isinstance(inside, Members)
    key = _member(inside[index])[0] if in_object else ""
    value = _value(inside, index)
    match draw(st.sampled_from(["drop", "double", "rename", "known", "known", "value", "value", "wrap", "copy"])):
        case "drop":
            del inside[index]
            return
        case "double":
            again = draw(_any_value)
            inside.insert(draw(st.integers(0, len(inside))), (key, again) if in_object else value)
            return
        case "rename":
            key = draw(st.sampled_from(_KEYS) | st.text(max_size=5))
        case "known":
            value = draw(st.sampled_from([None, *_STRINGS.get(key, [value])]))
        case "value":
            value = draw(_any_value)
        case "wrap":
            value = draw(st.sampled_from([[value], [value, value], Members([(key, value)])]))
        case _:
            other, other_index = draw(st.sampled_from(_places(whole)))
            # A copy, because it may contain its destination.
            value = copy.deepcopy(_value(other, other_index))
    inside[index] = (key, value) if in_object else value


_TOKENS: Final = [
    *'{}[]",:\\/-+.eE 0\n\t\x00\x7f\ufeff\ufffd\u2028',
    '""',
    "null",
    r"\u",
    r"\ud800",
    r"\udfff",
    "\U0001f600",
]


@st.composite
def _edited(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Remove, double or replace characters or bytes."""
    text = draw(texts)
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(text)))
            end = min(len(text), start + draw(st.integers(0, 10)))
            instead = draw(st.sampled_from(_TOKENS) | st.text(max_size=3) | st.just(text[start:end] * 2))
            text = text[:start] + instead + text[end:]
        return text
    data = bytearray(text.encode())
    for _ in range(draw(st.integers(1, 4))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return data.decode(errors="replace")


@st.composite
def _spliced(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Join the beginning of one text and the end of another."""
    one, other = draw(texts), draw(texts)
    return one[: draw(st.integers(0, len(one)))] + other[draw(st.integers(0, len(other))) :]


def damaged(texts: Sequence[str]) -> st.SearchStrategy[str]:
    """Draw from these texts, damaged in any way or not at all. Rare types are as frequent as common ones."""
    by_type: dict[str, list[str]] = {}
    for text in texts:
        by_type.setdefault(_type_of(text), []).append(text)
    whole = st.one_of([st.sampled_from(of_a_type) for of_a_type in by_type.values()])
    restructured = _restructured(whole)
    ways = [whole] * 2 + [restructured] * 8 + [_edited(whole), _spliced(whole), _edited(restructured), st.text()]
    # Not `one_of`, which drops repeated strategies: most results should be JSON.
    return st.integers(0, len(ways) - 1).flatmap(lambda way: ways[way])


@st.composite
def transcripts(
    draw: st.DrawFn, base: Sequence[T], others: st.SearchStrategy[T], damage: Callable[[T], st.SearchStrategy[T]]
) -> list[T]:
    """Draw a conversation with dropped, doubled, moved, damaged and added messages."""
    steps = list(base)
    # Usually few changes: a conversation with many breaks ends early.
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 2, 3, 6]))):
        index = draw(st.integers(0, max(0, len(steps) - 1)))
        match draw(st.sampled_from(["insert", "drop", "double", "move", "damage", "damage", "damage"])):
            case "insert":
                steps.insert(index, draw(others))
            case "drop" if steps:
                del steps[index]
            case "double" if steps:
                steps.insert(draw(st.integers(0, len(steps))), steps[index])
            case "move" if steps:
                steps.insert(draw(st.integers(0, len(steps) - 1)), steps.pop(index))
            case "damage" if steps:
                steps[index] = draw(damage(steps[index]))
            case _:
                pass
    return steps


def decoded(texts: Sequence[str]) -> list[ServerMessage]:
    """Decode the valid messages of a server among these texts."""
    messages: list[ServerMessage] = []
    for text in texts:
        with suppress(InvalidMessage):
            messages.append(decode_server_message(text))
    return messages
