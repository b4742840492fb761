"""A WebSocket over a trio stream."""
