"""The demonstration of ``galaxy-trio demo``."""
