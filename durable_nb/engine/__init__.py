"""One run of one process: its history, what replays, its status."""
