"""Splitting steepest descent: units split in two where the loss bends down (Liu et al. 2019)."""
