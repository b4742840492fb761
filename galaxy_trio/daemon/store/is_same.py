"""The comparison of a column with a parameter that may be NULL, for which each database uses an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BinaryExpression, Column, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.operators import is_not_distinct_from

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


class _IsSame(BinaryExpression[bool]):
    """Compiled as SQLAlchemy's own IS NOT DISTINCT FROM, except for PostgreSQL, which would read all rows."""

    inherit_cache = True


def is_same(column: Column[Any], parameter: str) -> BinaryExpression[bool]:  # Any: the column's type
    """Whether a column has the value of a parameter, or both are NULL."""
    return _IsSame(column, bindparam(parameter, type_=column.type), is_not_distinct_from)


@compiles(_IsSame, "postgresql")
def _on_postgresql(element: _IsSame, compiler: SQLCompiler, **options: Any) -> str:
    # The planner knows the parameter, and drops one of the two.
    column, value = compiler.process(element.left, **options), compiler.process(element.right, **options)
    return f"({column} = {value} OR ({column} IS NULL AND {value} IS NULL))"
