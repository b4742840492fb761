"""Simulated runs of task graphs: edited, held, cancelled, retried and planned, over the same faulty network."""
