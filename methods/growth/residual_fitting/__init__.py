"""Residual fitting: a small network trained on the remaining error is appended (Ford, Winder, McClellan 2023)."""
