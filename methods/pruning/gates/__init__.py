"""Gates that training takes to exactly zero, on the weights of units and of blocks."""
