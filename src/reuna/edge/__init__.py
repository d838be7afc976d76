"""The edge node: learns where the data is made, and works with no line."""
