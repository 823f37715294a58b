"""Storage of values too large for a row: files beside the database, or objects elsewhere."""
