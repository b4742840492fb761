"""Measurements of the client: ``python -m tests.benchmarks.bench``. Nothing here is a test, and nothing asserts."""
