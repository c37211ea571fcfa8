"""A small but real Slurm on one machine: a controller with accounting, compute nodes with stand-ins for GPUs, two partitions."""
