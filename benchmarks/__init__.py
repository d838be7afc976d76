"""Measurements, each one command that prints one JSON line. Nothing here runs in the test suite."""
