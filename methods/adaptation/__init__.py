"""One act of an adaptation: what may change, what is measured, chosen, planned and carried out, on all ranks alike."""
