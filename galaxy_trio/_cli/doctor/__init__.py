"""``galaxy-trio doctor``: finds out what keeps devices from being reached."""
