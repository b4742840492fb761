"""A constellation, its server and its devices under whatever happens, in no time, and the same again with the same seed."""
