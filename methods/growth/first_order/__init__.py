"""What growth methods share: paths between two layers, gradients and moments at them, singular vectors, insertion points."""
