"""Remaining useful life of C-MAPSS engines: features and model."""
