"""Simulated clusters: several daemons on one database in memory, one AIP server, clients, and faults of everything between them."""
