"""Lets graphs go on whatever has become of the daemons that ran their tasks, and tries nodes again when their time has come."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.daemon.store.database import StoreError

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

_DELAYED_INTERVAL: Final = 1.0
"""Seconds between two looks for nodes whose next attempt may begin."""
_SWEEP_INTERVAL: Final = 60.0
"""Seconds between two looks for graphs that have not followed the end of a task. After a takeover, they do so immediately; this is for
those of a daemon that died in between."""


async def sweep_graphs(store: Store, delayed_interval: float = _DELAYED_INTERVAL) -> NoReturn:
    """Look for graphs that must go on, at the start and periodically. What fails is logged, and tried again. Never returns.

    Any number of daemons may do so: each step takes place once.
    """
    next_sweep = trio.current_time()
    while True:
        try:
            if trio.current_time() >= next_sweep:
                await store.graphs.sweep()
                next_sweep = trio.current_time() + _SWEEP_INTERVAL
            await store.graphs.try_delayed(wall_clock.now())
        except StoreError as error:
            logger.warning("graphs cannot be looked for, and some may stand still: %s; retrying", error)
        await trio.sleep(delayed_interval)
