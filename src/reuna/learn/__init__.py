"""How numbers combine: the grid, exact sums, server strategies. Plain arrays, no network, no frameworks."""
