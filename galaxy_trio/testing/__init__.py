"""Test support for applications: servers, devices and a network in memory, under the real WebSocket code."""

from galaxy_trio._exports import set_module
from galaxy_trio.testing.determinism import deterministic, run
from galaxy_trio.testing.faults import FaultyStream
from galaxy_trio.testing.memory_fleet import MemoryFleet, open_memory_fleet
from galaxy_trio.testing.memory_server import MemoryServer, open_memory_server
from galaxy_trio.testing.network import Conditions, Network, NetworkLink, NetworkStream
from galaxy_trio.testing.scripted_peer import PEER_URL, ScriptedPeer, open_bare_peer, open_scripted_peer

__all__ = [
    "PEER_URL",
    "Conditions",
    "FaultyStream",
    "MemoryFleet",
    "MemoryServer",
    "Network",
    "NetworkLink",
    "NetworkStream",
    "ScriptedPeer",
    "deterministic",
    "open_bare_peer",
    "open_memory_fleet",
    "open_memory_server",
    "open_scripted_peer",
    "run",
]

set_module(globals())
