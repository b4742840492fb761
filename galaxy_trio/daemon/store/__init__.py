"""The daemon's database."""
