"""Whether a campaign can run here and on the nodes of a cluster: one finding a check, with what to do about it."""
