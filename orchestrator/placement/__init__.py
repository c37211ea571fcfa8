"""Where the trials of a campaign run: workers of this machine, Slurm jobs, or a pool of nodes that Slurm jobs bring."""
