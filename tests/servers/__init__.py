"""Real servers that tests start: a process of their own on loopback, in a temporary folder."""
