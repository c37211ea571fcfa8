"""Placement `job`: every trial is a Slurm job of its own, watched from the driver through its folder."""
