"""Variance transfer: units in cancelling pairs, and a learning rate for each growth stage (Yuan et al. 2023)."""
