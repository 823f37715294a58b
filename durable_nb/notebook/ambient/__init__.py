"""State outside the namespace that a cell changed."""
