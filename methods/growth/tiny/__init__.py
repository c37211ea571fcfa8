"""TINY: new units for what the existing weights of a layer cannot do (Verbockhaven et al. 2024)."""
