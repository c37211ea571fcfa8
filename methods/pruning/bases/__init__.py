"""What pruning methods share: ways in which units and weights go, and what scores are taken from."""
