"""The sample daemon: a constellation behind HTTP, whose tasks survive it. Needs the extra ``daemon``."""
