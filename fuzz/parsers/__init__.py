"""One harness a parser."""
