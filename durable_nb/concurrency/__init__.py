"""The loop thread, the bridge between it and callers, pending commits, interrupts and time limits."""
