"""Data from outside: files, checked strictly."""
