"""Change live networks: find what may grow or shrink, plan, apply, and write down what the network has become."""

if __name__ != "coppice.methods":  # run from the checkout, this folder could be imported under a second name
    raise ImportError("import it as coppice.methods: what is imported under two names exists twice.")
