"""JSON text to message and back."""
