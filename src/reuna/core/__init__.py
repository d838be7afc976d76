"""The words every other package shares: records, ports, errors, settings, tensor layout.

Nothing here does I/O, reads the environment or looks at a clock.
"""
