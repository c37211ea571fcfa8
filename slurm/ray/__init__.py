"""Ray clusters whose nodes are Slurm jobs."""
