"""The texts of the event loop's benchmark: values of every shape, at several sizes, valid or broken at their end."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from .wire import LIMIT, MARGIN, MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_VALUES: Final = 500_000
_MARGIN_OF_VALUES: Final = 100
"""Values and keys of a message besides the payload, and more."""


class Shape(StrEnum):
    """What a value consists of."""

    TEXT = "one string"
    NON_ASCII = "one string of Chinese text"
    EMOJI = "one string of ASCII and one emoji"
    ESCAPES = "one string of escapes \\u0041"
    PAIRS = "one string of surrogate pairs"
    LINE_BREAKS = "one string of escapes \\n"
    QUOTES = 'one string of escapes \\"'
    STRINGS = "strings of 72 characters"
    SHORT_STRINGS = "empty strings"
    LISTS = "empty lists"
    NESTED = "lists nested 100 deep"
    OBJECTS = "small objects"
    KEYS = "distinct keys"
    LONG_KEYS = "distinct keys of 1,000 characters"
    INTEGERS = "integers"
    LONG_INTEGERS = "integers of 300 digits"
    FLOATS = "floats of 17 digits"
    LONG_FLOATS = "floats of 1,000 digits"
    CONSTANTS = "null, true, false"
    DIGITS = "one number"
    SPACE = "white space"


class Size(StrEnum):
    """How large a message is."""

    SMALL = "1 MiB"
    VALUES = "500,000 values"
    LARGE = "10 MiB"
    LIMIT = "100 MiB"


_BYTES: Final[Mapping[Size, int]] = {
    Size.SMALL: MIB - MARGIN,
    Size.VALUES: LIMIT - MARGIN,
    Size.LARGE: 10 * MIB - MARGIN,
    Size.LIMIT: LIMIT - MARGIN,
}


class _Piece(NamedTuple):
    """What is repeated between two ends, and its number of values and keys. A digit sign in it stands for the number of the piece."""

    text: bytes
    values: int
    ends: tuple[bytes, bytes] = (b"[", b"0]")


_STRING: Final = (b'"', b'"')
_OBJECT: Final = (b"{", b'"":0}')
_LINE: Final = b"The window of the text editor is open, and holds the report of the day. "

_PIECES: Final[Mapping[Shape, _Piece]] = {
    Shape.TEXT: _Piece(_LINE, 0, _STRING),
    Shape.NON_ASCII: _Piece("文本编辑器的窗口已打开。".encode(), 0, _STRING),
    Shape.EMOJI: _Piece(_LINE, 0, ('"😀'.encode(), b'"')),
    Shape.ESCAPES: _Piece(b"\\u0041", 0, _STRING),
    Shape.PAIRS: _Piece(b"\\ud83d\\ude00", 0, _STRING),
    Shape.LINE_BREAKS: _Piece(b"\\n", 0, _STRING),
    Shape.QUOTES: _Piece(b'\\"', 0, _STRING),
    Shape.STRINGS: _Piece(b'"%b",' % _LINE, 1),
    Shape.SHORT_STRINGS: _Piece(b'"",', 1),
    Shape.LISTS: _Piece(b"[],", 1),
    Shape.NESTED: _Piece(b"[" * 100 + b"]" * 100 + b",", 100),
    Shape.OBJECTS: _Piece(b'{"id":1234567,"name":"window 12"},', 5),
    Shape.KEYS: _Piece(b'"#":0,', 2, _OBJECT),
    Shape.LONG_KEYS: _Piece(b'"%b#":0,' % (b"k" * 993), 2, _OBJECT),
    Shape.INTEGERS: _Piece(b"1234567,", 1),
    Shape.LONG_INTEGERS: _Piece(b"7" * 300 + b",", 1),
    Shape.FLOATS: _Piece(b"0.12345678901234567,", 1),
    Shape.LONG_FLOATS: _Piece(b"0.%b1," % (b"123456789" * 111), 1),
    Shape.CONSTANTS: _Piece(b"null,true,false,", 3),
    Shape.DIGITS: _Piece(b"7", 0, (b"[", b".5]")),
    Shape.SPACE: _Piece(b" \n\t ", 0, (b"[", b"]")),
}


def sizes_of(shape: Shape) -> list[Size]:
    """The sizes that differ for a shape: the limit of values is that of bytes where it is reached later."""
    piece = _PIECES[shape]
    reached = bool(piece.values) and _MAX_VALUES // piece.values * len(_numbered(piece, 1)) < _BYTES[Size.LIMIT]
    return [size for size in Size if reached or size is not Size.VALUES]


def is_refused(shape: Shape, size: Size) -> bool:
    """Whether a valid value has more values than a message may have."""
    piece = _PIECES[shape]
    return size is not Size.VALUES and _BYTES[size] // len(_numbered(piece, 1)) * piece.values > _MAX_VALUES


def _numbered(piece: _Piece, count: int) -> bytes:
    if b"#" not in piece.text:
        return piece.text * count
    before, after = piece.text.split(b"#")
    return b"".join(b"%b%07d%b" % (before, number, after) for number in range(count))


def make_value(shape: Shape, size: Size, *, broken: bool) -> bytes:
    """Make the JSON text of a value.

    Args:
        shape: What it consists of.
        size: How large the message around it may be.
        broken: Whether it does not end.
    """
    piece = _PIECES[shape]
    opening, closing = piece.ends
    count = _BYTES[size] // len(_numbered(piece, 1))
    if size is Size.VALUES:
        count = min(count, (_MAX_VALUES - _MARGIN_OF_VALUES) // piece.values)
    return opening + _numbered(piece, count) + (b"" if broken else closing)
