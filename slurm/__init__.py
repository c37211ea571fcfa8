"""The cluster: sites, submission, broker. Knows nothing of methods or triggers."""

if __name__ != "coppice.slurm":  # run from the checkout, this folder could be imported under a second name
    raise ImportError("import it as coppice.slurm: what is imported under two names exists twice.")
