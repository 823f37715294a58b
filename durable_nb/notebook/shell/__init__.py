"""The IPython shell: executing a cell's body, its front end, its tracebacks."""
