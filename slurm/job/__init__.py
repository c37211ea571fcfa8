"""Inside a Slurm job: which of its tasks a process is, the signals before its end, and the job that goes on after it."""
