"""How networks grow: one file a method, or a folder of its name; `first_order` is what they share."""
