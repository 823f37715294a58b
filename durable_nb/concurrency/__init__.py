"""The loop thread, the seam between it and callers, interrupts and time limits."""
