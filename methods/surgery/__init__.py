"""Change a network: tensors, layers, masks, and what must follow them (optimizers, averages)."""
