"""When a network changes (triggers), and which trial goes on (trials)."""

if __name__ != "coppice.scheduler":  # run from the checkout, this folder could be imported under a second name
    raise ImportError("import it as coppice.scheduler: what is imported under two names exists twice.")
