"""The demonstration: everything at once in memory, checked as it goes."""
