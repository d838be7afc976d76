"""What the drill `thousand` is made of: many agents in a few processes, and what is counted of them."""
