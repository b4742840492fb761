"""Simulated runs of a constellation, its server and devices under faults: on a mock clock, reproducible from a seed."""
