"""Placement `local`: trials are workers of a Ray on this machine."""
