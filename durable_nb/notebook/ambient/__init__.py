"""State outside the namespace that a cell changes: random generators, the environment, library options."""
