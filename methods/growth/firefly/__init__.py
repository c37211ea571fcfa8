"""Firefly: splits, new units and new blocks compete in one supernet (Wu et al. 2020)."""
