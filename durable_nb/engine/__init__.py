"""The engine: opens a run, decides for each call whether it replays, and records its steps."""
