"""Fixtures for tests of the agent."""

from tests.agent.support.machine import datagrams, machine, network, without_psutil

__all__ = ["datagrams", "machine", "network", "without_psutil"]
