"""This package under measurement, with its WebSocket from the Sans-I/O protocol of websockets: otherwise as `contender_galaxy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .contender_galaxy import measure_large, measure_rate_of

if TYPE_CHECKING:
    from .meter import Plan, Rate


def measure_rate(plan: Plan) -> Rate:
    return trio.run(measure_rate_of, plan, "websockets")


def measure_large_result(url: str) -> float:
    """Seconds for the second of two."""
    return trio.run(measure_large, url, "websockets")[1]
