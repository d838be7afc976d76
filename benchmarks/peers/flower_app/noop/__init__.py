"""Flower's side of the benchmark: the same work as ours."""
