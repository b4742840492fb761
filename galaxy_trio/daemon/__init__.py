"""The sample daemon: a constellation behind HTTP, with tasks that survive restarts. Needs the extra ``daemon``."""
