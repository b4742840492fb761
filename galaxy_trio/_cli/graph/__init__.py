"""The commands of ``galaxy-trio graph``."""
