"""Reads what a docstring says about a function, its parameters and its result: in Google's, NumPy's and Sphinx's form."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARAMETERS: Final = (
    "args",
    "arguments",
    "parameters",
    "params",
    "other parameters",
    "keyword args",
    "keyword arguments",
    "attributes",
)
_RESULT: Final = ("returns", "return")
_OTHERS: Final = ("raises", "yields", "examples", "example", "notes", "note", "see also", "warnings", "warning", "todo")
_SECTIONS: Final = (*_PARAMETERS, *_RESULT, *_OTHERS)
_FIELD: Final = re.compile(r":(\w+)(?:\s+([^:]*))?:\s*(.*)")
"""A field of Sphinx: its kind, its argument and the beginning of its text."""
_GOOGLE: Final = re.compile(r"(\*{0,2}\w+)\s*(?:\([^:]*\))?\s*:\s*(.*)")
"""A parameter: its name and the beginning of its text."""
_NUMPY: Final = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")
"""One or more parameters, and perhaps their type."""
_TYPED: Final = re.compile(r"(?:[a-z]\w*|[\w.]*\[[^:]*\])(?: \| [\w.\[\], ]+)*:\s+(.*)", re.DOTALL)
"""A result after its type."""


@attrs.define
class Docstring:
    """What a docstring says, without types. `text` is everything that is not about parameters or the result."""

    text: str | None = None
    parameters: dict[str, str] = attrs.field(factory=dict[str, str])
    result: str | None = None


def read_docstring(text: str | None) -> Docstring:
    """Read a docstring. Any text is accepted: what has none of the three forms is all `text`."""
    read = Docstring()
    others: list[str] = []
    for kind, lines in _parts(inspect.cleandoc(text or "").splitlines()):
        if kind == "text":
            others += lines
        elif kind == "result":
            read.result = _joined(lines) or read.result
        elif kind:
            for name in kind.split(","):
                read.parameters[name.strip(" *")] = _joined(lines)
    read.text = "\n".join(others).strip() or None
    return read


def _parts(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Split a docstring into parts: each is ``text``, ``result``, the names of parameters, or empty for what is left out."""
    at = 0
    while at < len(lines):
        header = lines[at].strip().lower().removesuffix(":")
        underlined = at + 1 < len(lines) and re.fullmatch(r"\s*-{3,}\s*", lines[at + 1]) is not None
        is_section = (
            header in _SECTIONS and not lines[at].startswith(" ") and (underlined or lines[at].rstrip().endswith(":"))
        )
        field = _FIELD.fullmatch(lines[at].strip())
        if is_section:
            begin = at + 1 + underlined
            at = _end_of_section(lines, begin, underlined=underlined)
            body = lines[begin:at]
            if header in _PARAMETERS:
                yield from _numpy_parameters(body) if underlined else _google_parameters(body)
            elif header in _RESULT:
                yield "result", _numpy_result(body) if underlined else _google_result(body)
            else:
                yield "text", lines[begin - 1 - underlined : at]
        elif field is not None and (kind := _kind_of(field)) is not None:
            begin, at = at, _end_of_block(lines, at + 1)
            yield kind, [field[3], *lines[begin + 1 : at]]
        else:
            yield "text", [lines[at]]
            at += 1


def _kind_of(field: re.Match[str]) -> str | None:
    """The kind of part that a field of Sphinx is; None for a field to leave in the text."""
    name, argument = field[1].lower(), (field[2] or "").strip()
    if name in ("param", "parameter", "arg", "argument", "key", "keyword") and argument:
        return argument.split()[-1]
    if name in _RESULT:
        return "result"
    return "" if name in ("type", "rtype") else None


def _end_of_block(lines: list[str], at: int) -> int:
    """The end of the indented lines that begin here."""
    while at < len(lines) and lines[at].startswith(" "):
        at += 1
    return at


def _end_of_section(lines: list[str], at: int, *, underlined: bool) -> int:
    if not underlined:
        while at < len(lines) and (not lines[at].strip() or lines[at].startswith(" ")):
            at += 1
        return at
    while at < len(lines):
        if at + 1 < len(lines) and re.fullmatch(r"-{3,}\s*", lines[at + 1]):
            return at
        at += 1
    return at


def _google_parameters(body: list[str]) -> Iterator[tuple[str, list[str]]]:
    body = inspect.cleandoc("\n".join(["", *body])).splitlines()
    at = 0
    while at < len(body):
        entry = _GOOGLE.fullmatch(body[at])
        begin, at = at + 1, _end_of_block(body, at + 1)
        if entry is not None:
            yield entry[1], [entry[2], *body[begin:at]]


def _numpy_parameters(body: list[str]) -> Iterator[tuple[str, list[str]]]:
    at = 0
    while at < len(body):
        entry = _NUMPY.fullmatch(body[at].rstrip())
        begin, at = at + 1, _end_of_block(body, at + 1)
        if entry is not None:
            yield entry[1], body[begin:at]


def _google_result(body: list[str]) -> list[str]:
    typed = _TYPED.fullmatch("\n".join(body).strip())
    return body if typed is None else typed[1].splitlines()


def _numpy_result(body: list[str]) -> list[str]:
    described = [line for line in body if line.startswith(" ")]
    return described or body


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
