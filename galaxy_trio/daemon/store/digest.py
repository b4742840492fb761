"""Comparisons of texts of any size with parameters, for which each database uses an index.

PostgreSQL refuses a row whose indexed values have more than about 2,700 bytes, so its indexes have digests of texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BinaryExpression, Column, ColumnElement, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import is_not_distinct_from

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


class digest(FunctionElement[Any]):  # noqa: N801  # like SQLAlchemy's functions
    """What the index has of a text: its digest in PostgreSQL, the text itself in SQLite."""

    inherit_cache: bool | None = True


@compiles(digest)
def _digest(element: digest, compiler: SQLCompiler, **options: Any) -> str:  # Any: SQLAlchemy's options
    return compiler.process(element.clauses, **options)


@compiles(digest, "postgresql")
def _digest_on_postgresql(element: digest, compiler: SQLCompiler, **options: Any) -> str:  # Any: as above
    return f"sha256({compiler.process(element.clauses, **options)})"


class _IsSame(BinaryExpression[bool]):
    """Compiled as SQLAlchemy's own IS NOT DISTINCT FROM, except for PostgreSQL, which would read all rows."""

    inherit_cache: bool | None = True


@compiles(_IsSame, "postgresql")
def _is_same_on_postgresql(element: _IsSame, compiler: SQLCompiler, **options: Any) -> str:  # Any: as above
    # The planner knows the parameter, and drops one of the two.
    column, value = compiler.process(element.left, **options), compiler.process(element.right, **options)
    return f"({column} = {value} OR ({column} IS NULL AND {value} IS NULL))"


def is_equal(column: Column[Any], parameter: str) -> ColumnElement[bool]:  # Any: the column's type
    """Whether a column has the value of a parameter, which is not NULL."""
    return digest(column) == digest(bindparam(parameter, type_=column.type))


def is_same(column: Column[Any], parameter: str) -> ColumnElement[bool]:  # Any: the column's type
    """Whether a column has the value of a parameter, or both are NULL."""
    return _IsSame(digest(column), digest(bindparam(parameter, type_=column.type)), is_not_distinct_from)
