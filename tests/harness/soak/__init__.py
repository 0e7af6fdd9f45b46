"""Verified load on mounts, and the deaths of processes in it."""
