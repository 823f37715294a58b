"""The notebook's face: magics, durable cells, what they display."""
