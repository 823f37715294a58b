"""The output of durable cells: recorded outputs and status lines."""
