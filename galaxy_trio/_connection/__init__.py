"""One connection, in any role."""
