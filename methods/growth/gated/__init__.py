"""The number of units is trained: gates that one number opens one after the other (Radhakrishnan et al. 2025)."""
