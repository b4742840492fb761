"""Commands and results for tests of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from galaxy_trio.messages import Command, CommandResult, ToolType

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask
    from tests.server.support.raw_client import Members

LOOK = Command("look", ToolType.DATA_COLLECTION)
CLICK = Command("click", ToolType.ACTION, {"x": 3, "y": 4}, "call-1")


def result(call_id: object, value: object = None, status: str = "success") -> Members:
    return {"status": status, "call_id": call_id, "result": value}


def actions_of(command: Members) -> list[Members]:
    return cast("list[Members]", command["actions"])


async def click_and_look(task: ServerTask) -> object:
    """A session function that runs two commands and returns their results."""
    return [as_json(one) for one in await task.execute([CLICK, LOOK])]


def cast_results_of(end: Members) -> object:
    return cast("dict[str, object]", end["result"])["results"]


def cast_results(recorded: object, ids: list[object]) -> list[Members]:
    """The recorded results with this run's call ids."""
    return [{**one, "call_id": call_id} for one, call_id in zip(cast("list[Members]", recorded), ids, strict=True)]


def cast_list(value: object) -> list[list[object]]:
    return cast("list[list[object]]", value)


def as_json(one: CommandResult) -> object:
    return [one.status, one.error, one.result, one.call_id]
