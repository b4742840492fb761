"""Task graphs over a constellation."""
