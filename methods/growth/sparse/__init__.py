"""Dynamic sparse training: masked connections come back (SET, RigL, SNFS, NeST)."""
