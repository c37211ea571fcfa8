"""Cascade correlation: the candidate neuron that follows the remaining error best comes in (Fahlman and Lebiere 1990)."""
