"""Graphs as files and as data: this package's own form, and the original's."""
