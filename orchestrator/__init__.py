"""Campaigns: binds methods, scheduler and slurm to trials that are searched, kept alive and reported."""

if __name__ != "coppice.orchestrator":  # run from the checkout, this folder could be imported under a second name
    raise ImportError("import it as coppice.orchestrator: what is imported under two names exists twice.")
