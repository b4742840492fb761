"""Faults of a network connection through the proxy."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from tests.connection.support.proxy import ProxiedConnection


class Fault(StrEnum):
    """What happens to a connection."""

    CUT = "cut"
    RESET = "reset"
    CUT_FRAME = "cut within a frame"
    STALL = "stalled in one direction"
    HALF_OPEN = "half-open"
    SLOW = "slow"


def break_connection(line: ProxiedConnection, random: Random) -> Fault:
    """Do something to a connection, and return what it was. A stalled one can be resumed."""
    fault = random.choice(list(Fault))
    match fault:
        case Fault.CUT:
            line.cut()
        case Fault.RESET:
            line.reset()
        case Fault.CUT_FRAME:
            line.cut_after(random.randrange(1, 500))
        case Fault.STALL:
            line.stall(to_server=random.random() < 0.5)
        case Fault.HALF_OPEN:
            line.stall(to_server=True)
            line.stall(to_server=False)
        case Fault.SLOW:
            line.trickle(1000, 0.001)
    return fault
