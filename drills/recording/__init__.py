"""Lines that are recorded: TLS ends at a relay that holds the keys of both sides."""
