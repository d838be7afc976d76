"""What the drill `drift` is made of: presses that drift, their project, and the fleet that follows them."""
