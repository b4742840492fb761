"""The command line `galaxy-trio`."""
