"""Servers that tests fetch from."""
