"""Projects over real industrial data; each runs in the tests."""
