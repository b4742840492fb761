"""The queued tasks in the database: their order, and the indexes by which they are found."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import insert

from galaxy_trio.daemon.store import statements
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest
from galaxy_trio.daemon.store.rows import requirement_columns
from galaxy_trio.daemon.store.schema import TASKS
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.store import ATTEMPT

if TYPE_CHECKING:
    from sqlalchemy import Connection, Update

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon


@pytest.mark.parametrize("requirement", [Requirement("d1"), Requirement(os="linux"), Requirement(capabilities=("a",))])
async def test_tasks_to_claim_are_found_by_the_index(database: Location, requirement: Requirement) -> None:
    def fill(transaction: Transaction) -> None:
        values = {
            "state": "queued",
            "request": "x",
            "asked_device": "d2",
            "capabilities": "[]",
            "timeout": 1.0,
            "created": 0.0,
        }
        transaction.connection.execute(insert(TASKS), [{"id": str(number), **values} for number in range(1_000)])
        if transaction.connection.dialect.name == "postgresql":
            transaction.connection.exec_driver_sql("ANALYZE")

    def explain(connection: Connection) -> str:
        compiled = cast("Update", statements.CLAIM).compile(connection)
        given = compiled.construct_params({"me": "a life", "limit": 10} | requirement_columns(requirement))
        ordered = tuple(given[name] for name in compiled.positiontup) if compiled.positiontup else given
        how = "EXPLAIN" if compiled.positiontup is None else "EXPLAIN QUERY PLAN"
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{how} {compiled}", ordered))

    async with open_store(database) as store:
        await store.write(fill)
        plan = await store.read(explain)
    # The condition is one of the index, whose order needs no sorting.
    [condition] = re.findall(r"tasks_queued.*?\(.*\)", plan, re.DOTALL)
    assert all(column in condition for column in ("asked_device", "os", "capabilities"))
    assert not re.search("Sort|B-TREE", plan), plan


async def test_queued_tasks_are_claimed_by_priority_and_then_in_the_order_of_acceptance(database: Location) -> None:
    priorities = [0, -100, 100, 0, 100, -1]
    async with open_store(database) as store:
        for priority in priorities:
            await store.add(TaskRequest("echo", "d1", priority=priority))
        read = list[TaskRecord]()
        while claimed := await store.claim(Requirement("d1"), store.life, 2):
            read += claimed
        assert [record.number for record in read] == [3, 5, 1, 4, 6, 2]
        assert [record.asked.priority for record in read] == sorted(priorities, reverse=True)
        failed = await store.fail_queued(Requirement("d1"), "no device", 3)
        assert [record.number for record in failed] == [3, 5, 1]
        again = await store.retry(failed[0].id)
    assert again.asked.priority == 100


async def test_texts_of_a_task_may_have_any_size(database: Location) -> None:
    # No database can compress them.
    characters = random.Random(1)
    text, *capabilities = ("".join(chr(characters.randrange(2**16, 2**17)) for _ in range(900)) for _ in range(5))
    request = TaskRequest("echo", text, text, tuple(capabilities), idempotency_key=text)
    async with open_store(database) as store:
        record, _ = await store.add(request)
        assert await store.add(request) == (record, False)
        assert await store.claim(request.requirement, store.life, 10) == [record]
        counts = dict[Requirement, int]()
        await store.count_queued(counts.update)
        assert counts == {request.requirement: 1}
        running = await store.mark_running(record.id, text, ATTEMPT, store.life)
        assert await store.page(device=text) == [running]
        assert await store.page(device=text[1:]) == []
