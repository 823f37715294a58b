"""Durable Jupyter notebooks: finished cells and tasks survive the kernel."""
