"""How networks shrink: one file a method, or a folder of its name; `bases` and `gates` are what they share."""
