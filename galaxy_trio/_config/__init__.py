"""Strict readers for data from outside: files, objects, tokens."""
