"""Measure the package against a floor, a reference and a commit before: ``python -m tests.benchmarks.bench``. Prints Markdown.

The peer is a process of its own, and so is each measurement of each contender, which imports nothing of the others. The contenders take
turns, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from typing import Final, cast

from .cluster import bench_cluster
from .constellation import bench_constellation
from .daemon import bench_daemon
from .daemon_graphs import bench_daemon_graphs
from .daemon_start import bench_daemon_start
from .effort import FULL, QUICK
from .event_loop import bench_event_loop
from .fleet import bench_fleet
from .graphs import bench_graphs
from .import_time import bench_import
from .large_result import bench_large_result
from .limits import bench_limits
from .machine import load, print_machine
from .memory import bench_memory
from .outage import bench_outage
from .processes import running_peer
from .rates import CONTENDERS, bench_rates, print_profile
from .report import Target, print_targets
from .tasks import bench_tasks
from .trees import WORKING_TREE, extracted

_ON_PEER: Final = {
    "rates": bench_rates,
    "tasks": bench_tasks,
    "large": bench_large_result,
}
_OF_TREES: Final = {"import": bench_import, "daemon": bench_daemon, "daemon-start": bench_daemon_start}
_ALONE: Final = {
    "limits": bench_limits,
    "memory": bench_memory,
    "event-loop": bench_event_loop,
    "constellation": bench_constellation,
    "outage": bench_outage,
    "graphs": bench_graphs,
    "cluster": bench_cluster,
    "daemon-graphs": bench_daemon_graphs,
}
_PARTS: Final = (*_ON_PEER, *_OF_TREES, *_ALONE, "fleet")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", choices=_PARTS, action="append", help="not all of it")
    parser.add_argument("--baseline", metavar="REV", help="a commit whose import and daemon are measured as well")
    parser.add_argument("--chart", metavar="FILE", help="draw the fleet's throughput into an SVG file")
    parser.add_argument("--profile", action="store_true", help="show where the CPU time goes instead")
    parser.add_argument("--contender", choices=CONTENDERS, default="galaxy", help="which one to profile")
    parser.add_argument("--in-flight", type=int, default=100, help="requests in flight while profiling")
    return parser.parse_args()


def main() -> None:
    """Run the parts that are asked for."""
    arguments = _parse_arguments()
    effort = QUICK if arguments.quick else FULL
    if arguments.profile:
        with running_peer() as peer:
            print_profile(peer, arguments.contender, arguments.in_flight, 10 * effort.seconds)
        return
    only = cast("list[str] | None", arguments.only) or _PARTS
    began = time.monotonic()
    print_machine()
    with ExitStack() as stack:
        trees = [WORKING_TREE]
        if arguments.baseline is not None:
            trees.insert(0, stack.enter_context(extracted(arguments.baseline)))
        for tree in trees:
            tree.compile()
        targets: list[Target] = []
        with running_peer() as peer:
            for name, on_peer in _ON_PEER.items():
                if name in only:
                    targets += on_peer(peer, effort)
        for name, of_trees in _OF_TREES.items():
            if name in only:
                targets += of_trees(trees, effort)
        for name, alone in _ALONE.items():
            if name in only:
                targets += alone(effort)
        if "fleet" in only:
            bench_fleet(effort, arguments.chart)
    print_targets(targets)
    print(f"\nTook {time.monotonic() - began:.0f} s. Load after: {load()}.")


if __name__ == "__main__":
    main()
