"""Claims of queued tasks: a task that a life of a daemon has claimed is begun by this life alone.

They are operations of the store; `queries` says how these run.

Rule 4 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from galaxy_trio.daemon.store import statements
from galaxy_trio.daemon.store.events import CLUSTER, FREE
from galaxy_trio.daemon.store.queries import ignore
from galaxy_trio.daemon.store.rows import make_record, requirement_columns
from galaxy_trio.daemon.store.short_task import short_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.records import Requirement, TaskRecord


def claim(
    transaction: Transaction,
    requirement: Requirement,
    claimed_by: str,
    limit: int,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
) -> list[TaskRecord]:
    """Claim the first free tasks with a requirement for a life of a daemon. They stay `queued`, and no other life gets them.

    Returns:
        The tasks, in order. Those that another transaction is claiming are left out.
    """
    values = {"me": claimed_by, "limit": limit} | requirement_columns(requirement)
    rows = transaction.connection.execute(statements.CLAIM, values).all()
    records = sorted(map(make_record, rows), key=lambda record: record.rank)
    transaction.on_commit(partial(deliver, records))
    return records


def return_claims(transaction: Transaction, claimed_by: str, numbers: Sequence[int]) -> None:
    """Free the tasks with these numbers, those that a life of a daemon has claimed and that are `queued`."""
    for number in numbers:
        row = transaction.connection.execute(statements.RETURN_CLAIM, {"of_number": number, "me": claimed_by}).first()
        if row is not None:
            transaction.publish(FREE, short_task(make_record(row)))


def return_all_claims(transaction: Transaction, claimed_by: str) -> None:
    """Free all `queued` tasks that a life of a daemon has claimed."""
    if transaction.connection.execute(statements.RETURN_ALL_CLAIMS, {"me": claimed_by}).rowcount:
        transaction.publish(CLUSTER, {})
