"""Building blocks for structured concurrency."""
