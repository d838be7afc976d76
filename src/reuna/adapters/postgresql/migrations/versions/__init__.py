"""One file for each step; never changed after it was published."""
