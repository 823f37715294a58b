"""Questions to a person: forms in the page, lines in a terminal."""
