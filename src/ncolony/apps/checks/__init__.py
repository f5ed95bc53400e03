"""Looks after processes from outside: probes whether they are ready, and checks whether they still work."""
