"""What is asked of a campaign from outside, from its folder and from Slurm: state, queue, hours, logs, dashboards."""
