"""Self-expanding networks: units and layers where the natural gradient falls short (Mitchell et al. 2023)."""
