"""Placement `pool`: Slurm jobs bring nodes into one Ray cluster, and trials are packed onto them without queueing."""
