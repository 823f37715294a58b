"""The one table of defaults. Nothing else in the package holds a number of its own."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ABANDONED",
    "ANSWER_POLL",
    "BADGE",
    "BLOB_THRESHOLD",
    "BUSY_TIMEOUT",
    "CELL_ON_DRIFT",
    "CELL_ON_EDIT",
    "DASK_GATE",
    "DB",
    "EXECUTOR_LOOK",
    "EXIT_GRACE",
    "HEARTBEAT",
    "INTERRUPT_GRACE",
    "JOURNAL_SIZE_LIMIT",
    "LARGE_CALL",
    "LOCK_POLL",
    "LONGEST_NAME",
    "LONG_SLEEP",
    "NEWBORN",
    "OUTPUT_PATIENCE",
    "OUTPUT_POLL",
    "OUT_OF_BAND",
    "OWNER_SILENT",
    "REDIS_BATCH",
    "REDIS_CHUNK",
    "REDIS_CONNECTIONS",
    "REDIS_FIRST_PAUSE",
    "REDIS_LARGEST",
    "REDIS_LONGEST_PAUSE",
    "REDIS_PATIENCE",
    "REDIS_PREFIX",
    "REDIS_TIMEOUT",
    "REDIS_URL",
    "RETRIES",
    "SESSION_KEPT",
    "SHOWN_ARGUMENT",
    "SIGNAL_BACKSTOP",
    "SIGNAL_CHECK",
    "SIGNAL_GRACE",
    "SIGNAL_POLL",
    "SLEEP_SLICE",
    "SWEEP_BUDGET",
    "TASK_ON_CHANGE",
    "TASK_ON_EDIT",
    "WATCH",
    "WATCH_ALERT",
    "WATCH_IDLE",
    "WORKFLOW_NAME",
]

BADGE: Final = "full"
"""What a durable cell shows of itself: times and names; ``plain`` and ``off`` are for tests and print."""

DB: Final = "durable.db"
"""Where runs are kept when nobody says: beside the notebook or script, easy to see and to move."""

WORKFLOW_NAME: Final = "notebook"
"""The workflow's name in a notebook that gives none."""

RETRIES: Final = 3
"""Further attempts of a task after its first: network calls fail for seconds, not for minutes."""

BLOB_THRESHOLD: Final = 256 * 1024
"""Bytes above which a payload is a file: at this size a file and a row cost the same (measured)."""

OUT_OF_BAND: Final = 4096
"""Bytes from which a buffer leaves its pickle: below that, a part of its own costs more than the copy."""

ABANDONED: Final = 3600.0
"""Seconds after which a half-written blob is nobody's, where it cannot be seen whether its writer lives."""

NEWBORN: Final = 60.0
"""Seconds in which a half-written blob is left alone: its writer may not have come to lock it."""

BUSY_TIMEOUT: Final = 60.0
"""Seconds to wait for SQLite's lock: 5 s failed with 32 processes, 60 s never did (measured)."""

JOURNAL_SIZE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes to which SQLite cuts its write-ahead log back: large enough never to cost a truncation a step."""

SHOWN_ARGUMENT: Final = 200
"""Characters kept of an argument's repr, for the difference in an error message."""

LONGEST_NAME: Final = 1000
"""Characters of a run id, a step's or a signal's name: more is stray data, and no list can show it."""

SHOWN_CALL: Final = 500
"""Characters shown of the arguments of a tool call that is to be approved; a form has them whole."""

HEARTBEAT: Final = 5.0
"""Seconds between two signs of life of a run's owner: six may be missed before another host takes over."""

OWNER_SILENT: Final = 30.0
"""Seconds without a sign of life after which the owner on another host is dead: longer than a stall."""

SESSION_KEPT: Final = 86400
"""Seconds that Redis keeps the last sign of life of a process: only then is one that left it swept away."""

REDIS_URL: Final = "redis://localhost:6379/0"
"""The Redis server of a RedisStore that is told of none: where one listens that was just installed."""

REDIS_PREFIX: Final = "durable"
"""What all our keys on a Redis server begin with."""

REDIS_TIMEOUT: Final = 30.0
"""Seconds to wait for a Redis server's answer: 5 s, its client's own, is less than another's large value."""

REDIS_PATIENCE: Final = 60.0
"""Seconds of trying until a Redis server is given up: restarting one that has much to read takes as long."""

REDIS_FIRST_PAUSE: Final = 0.05
"""Seconds before the first try again at a Redis server; each later one is twice as long."""

REDIS_LONGEST_PAUSE: Final = 3.0
"""Seconds between two tries at a Redis server at most: a run goes on soon after it is back."""

REDIS_BATCH: Final = 1000
"""Commands that are sent to a Redis server together: more gain nothing, and delay other clients."""

REDIS_CHUNK: Final = 8 * 1024 * 1024
"""Bytes of a piece of a large value on Redis: one of 500 MiB stalled others for 4 s (measured)."""

REDIS_LARGEST: Final = 64 * 1024 * 1024
"""Bytes of the largest value that Redis itself takes: it has to hold all of them in memory."""

REDIS_CONNECTIONS: Final = 16
"""Commands under way to a Redis cluster at one time: each has a connection of its own there."""

EXECUTOR_LOOK: Final = 0.1
"""Seconds between two looks whether a body that runs elsewhere has timed out: nobody notices less."""

LARGE_CALL: Final = 10 * 1024 * 1024
"""Bytes of a call to an executor above which a notice is given: a large global goes along with every call."""

DASK_GATE: Final = 60.0
"""Seconds that a body on Dask waits to be published before it begins: its kernel does so in milliseconds."""

INTERRUPT_GRACE: Final = 0.5
"""Seconds that an interrupt waits for a commit under way: nearly all end in it, and people feel no delay."""

EXIT_GRACE: Final = 10.0
"""Seconds that closing a store, or the end of the process, waits for such commits."""

LOCK_POLL: Final = 0.001
"""Seconds between two tries at another process's lock: about as long as its transaction takes."""

SIGNAL_POLL: Final = 0.05
"""Seconds between two looks for a signal in a store that cannot tell when one came: no person notices."""

SIGNAL_GRACE: Final = 10.0
"""Seconds that a notebook without a person waits for a signal: a program's answer comes in less."""

WATCH: Final = 0.005
"""Seconds between two questions whether a store has changed: 4 % of a core while it lasts (measured)."""

WATCH_IDLE: Final = 0.032
"""The same once all have waited for a while: a wait of days costs under 1 % of a core (measured)."""

WATCH_ALERT: Final = 10.0
"""Seconds after which a wait counts as a long one: programs answer in less, people seldom do."""

SLEEP_SLICE: Final = 1.0
"""Seconds of a durable sleep between two looks at the clock, which may be set, and at cancellations."""

LONG_SLEEP: Final = 5.0
"""Seconds above which a run that sleeps says that it waits: less is not worth two commits."""

ANSWER_POLL: Final = 0.05
"""Seconds between two looks whether a front end has sent what was typed."""

CELL_ON_EDIT: Final = "rerun"
"""An edited cell is meant to give what it says now, and so is one that reads what an edit gave."""

CELL_ON_DRIFT: Final = "keep"
"""A clock or a random draw that gave another value is no reason to lose hours of finished work."""

SWEEP_BUDGET: Final = 1.0
"""Seconds, before a cell and after it, to look at names it cannot reach: more than that a person notices."""

OUTPUT_PATIENCE: Final = 1.0
"""Seconds to wait for output that bypassed sys.stdout: a child that never stops writing must not hold us."""

OUTPUT_POLL: Final = 0.001
"""Seconds between two looks whether that output has arrived: a kernel's thread needs less."""

SIGNAL_BACKSTOP: Final = 5.0
"""Seconds between two looks for a signal where Redis tells of each delivery: that may get lost."""

SIGNAL_CHECK: Final = 0.1
"""Seconds between two looks, where Redis tells of signals, whether a run that waits was cancelled or lost."""

TASK_ON_EDIT: Final = "keep"
"""A task's edit is often a log line: finished work stays, and a notice says so."""

TASK_ON_CHANGE: Final = "error"
"""Other arguments mean another call: its old result would be silently wrong."""
