"""What a cell did to the notebook's names: compared, saved, restored."""
