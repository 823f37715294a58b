"""The changes of a cell to the notebook's names: compared, saved, restored."""
