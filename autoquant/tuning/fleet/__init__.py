"""A search on several machines: one owner proposes and decides, workers carry trials out."""
