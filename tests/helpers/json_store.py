"""A user's own store."""

import asyncio
import json

from durable_nb import Store


class JsonFileStore(Store):
    """What a user may have written for the ancestor: everything in one JSON file."""

    def __init__(self, path):
        self.path = path
        self.marks = {}
        self.attempts = []

    def read(self):
        return json.loads(self.path.read_text())

    def write(self, kind, key, value):
        everything = self.read()
        everything[kind][key] = value
        self.path.write_text(json.dumps(everything))

    async def setup(self):
        if not self.path.exists():
            self.path.write_text(json.dumps({"steps": {}, "signals": {}}))

    async def get_step(self, run_id, step_id):
        await asyncio.sleep(0)
        steps = self.read()["steps"]
        key = f"{run_id}|{step_id}"
        return key in steps, steps.get(key)

    async def set_step(self, run_id, step_id, result, attempt=1):
        await asyncio.sleep(0)
        self.attempts.append((step_id, attempt))
        self.write("steps", f"{run_id}|{step_id}", result)

    async def mark_run_done(self, run_id):
        self.marks[run_id] = "done"

    async def mark_run_failed(self, run_id, error):
        self.marks[run_id] = error

    async def get_signal(self, run_id, name):
        signals = self.read()["signals"]
        key = f"{run_id}|{name}"
        return key in signals, signals.get(key)

    async def set_signal(self, run_id, name, payload):
        if f"{run_id}|{name}" in self.read()["signals"]:
            return False
        self.write("signals", f"{run_id}|{name}", payload)
        return True
