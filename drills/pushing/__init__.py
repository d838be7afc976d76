"""What the drill `push` and the tests of a project's CI file are made of: a forge in a folder."""
