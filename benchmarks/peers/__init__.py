"""Ours, the physical limit, Flower and NVFlare on the same work: see `benchmarks.peers.__main__`."""
