"""One trial: what it trains, how it grows and prunes, its checkpoints, and the processes that train it together."""
