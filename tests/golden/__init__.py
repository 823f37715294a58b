"""Checkpoints that a released version wrote, and the tests that every later version restores them.

``write.py`` writes them; ``values.py``, ``runs.py`` and ``cells.py`` are the programs, which the writer and
the tests share: a test runs them again on a copy. Those three files belong to the checkpoints, in which
steps are named and cells are fingerprinted; they change only when the checkpoints are written anew.
"""
