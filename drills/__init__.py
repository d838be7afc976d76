"""Drills: scenarios that prove a promise to a person. Each tells its story, ends with one JSON
line, and exits 0 only if the promise held; stopped by Ctrl-C or SIGTERM it leaves nothing behind, with status 130.
``python -m drills.NAME --json`` prints the line alone."""
