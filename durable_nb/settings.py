"""Defaults that users or tests may want to change.

Other constants stand beside the code that uses them.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = [
    "ABANDONED",
    "ANSWER_POLL",
    "BADGE",
    "BLOB_THRESHOLD",
    "BUSY_TIMEOUT",
    "CANCEL_PATIENCE",
    "CELLS",
    "CELL_ON_DRIFT",
    "CELL_ON_EDIT",
    "CHECKED",
    "CRASHES",
    "DASK_GATE",
    "DB",
    "EXIT_GRACE",
    "FILES_DIGESTED",
    "FILES_ON_RECORD",
    "FILE_DIGEST",
    "HEARTBEAT",
    "IDLE",
    "INTERRUPT_GRACE",
    "JOURNAL_SIZE_LIMIT",
    "LARGE_CALL",
    "LIVE_SECONDS",
    "LOCK_NOTICE",
    "LOCK_POLL",
    "LONGEST_NAME",
    "LOOKED",
    "MAX_RESULT",
    "NEWBORN",
    "OUTPUT_PATIENCE",
    "OUTPUT_POLL",
    "OUT_OF_BAND",
    "OWNER_SILENT",
    "READ_LIMIT",
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
    "SCHEMA_BUDGET",
    "SCHEMA_PATIENCE",
    "SESSION_KEPT",
    "SHOWN_ARGUMENT",
    "SIGNAL_BACKSTOP",
    "SIGNAL_CHECK",
    "SIGNAL_GRACE",
    "SIGNAL_POLL",
    "SLEEP_SLICE",
    "SMALL_DATABASE",
    "SWEEP_BUDGET",
    "TASK_FAILURE",
    "TASK_ON_CHANGE",
    "TASK_ON_DRIFT",
    "TASK_ON_EDIT",
    "WATCH",
    "WATCH_ALERT",
    "WATCH_IDLE",
    "WORKFLOW_NAME",
]

BADGE: Final = "full"
"""What the badge of a durable cell shows: times and names; ``plain`` and ``off`` are for tests and print."""

CELLS: Final = "marked"
"""Which cells of a notebook are durable: those that are marked as steps, or all."""

DB: Final = os.environ.get("DURABLE_NB_DB") or "durable.db"
"""The database if none is given: beside the notebook or script, easy to see and to move."""

WORKFLOW_NAME: Final = "notebook"
"""The name of a notebook's workflow if none is given."""

CRASHES: Final = 5
"""Passes in a row that may die while a body runs: a machine that fails does so once or twice."""

RETRIES: Final = 3
"""Attempts of a task after its first one: network calls fail for seconds, not for minutes."""

BLOB_THRESHOLD: Final = 256 * 1024
"""Bytes above which a payload becomes a blob: at this size a file and a row take equally long (measured)."""

OUT_OF_BAND: Final = 4096
"""Bytes from which a buffer is kept outside its pickle: below, a separate part costs more than a copy."""

ABANDONED: Final = 3600.0
"""Seconds after which an incomplete blob is deleted even if its writer's lock cannot be checked."""

NEWBORN: Final = 60.0
"""Seconds in which an incomplete blob is never deleted: its writer may not have locked it yet."""

BUSY_TIMEOUT: Final = 60.0
"""Seconds to wait for SQLite's lock: with 32 processes 5 s failed, 60 s did not (measured)."""

CANCEL_PATIENCE: Final = 60.0
"""Seconds in which a replayed step that its caller had cancelled must be cancelled again."""

JOURNAL_SIZE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes to which SQLite truncates its write-ahead log: large enough to avoid a truncation per step."""

SHOWN_ARGUMENT: Final = 200
"""Characters kept of an argument's repr, for the difference in an error message."""

LONGEST_NAME: Final = 1000
"""Characters allowed in a run id, a step's name or a signal's name: longer ones do not fit into a list."""

SHOWN_CALL: Final = 500
"""Characters shown of the arguments of a tool call to be approved; the form shows all of them."""

HEARTBEAT: Final = 5.0
"""Seconds between two heartbeats of a run's owner: six may be missed before another host takes over."""

OWNER_SILENT: Final = 30.0
"""Seconds without a heartbeat after which an owner on another host counts as dead: longer than a stall."""

SESSION_KEPT: Final = 86400
"""Seconds that Redis keeps the last heartbeat of a process, and then deletes its session."""

FILE_DIGEST: Final = 16 * 1024 * 1024
"""Bytes of the largest file that a step's record has a digest of: reading it takes a few milliseconds."""

FILES_DIGESTED: Final = 256 * 1024 * 1024
"""Bytes of the files of one step that are digested: of further ones the record has size and time."""

FILES_ON_RECORD: Final = 1000
"""Files that the record of one step names: about 100 KB; the record counts further ones."""

REDIS_URL: Final = "redis://localhost:6379/0"
"""The Redis server if none is given: where a newly installed one listens."""

REDIS_PREFIX: Final = "durable"
"""The prefix of all keys on a Redis server."""

REDIS_TIMEOUT: Final = 30.0
"""Seconds to wait for a reply of a Redis server: the client's 5 s are too short for large values."""

REDIS_PATIENCE: Final = 60.0
"""Seconds of retries until a Redis server counts as unreachable: restarting a large one takes as long."""

REDIS_FIRST_PAUSE: Final = 0.05
"""Seconds before the first retry at a Redis server; each later pause is twice as long."""

REDIS_LONGEST_PAUSE: Final = 3.0
"""Most seconds between two retries at a Redis server: a run continues soon after it is back."""

REDIS_BATCH: Final = 1000
"""Commands sent to a Redis server in one batch: more gain nothing, and delay other clients."""

REDIS_CHUNK: Final = 8 * 1024 * 1024
"""Bytes of a chunk of a large value on Redis: one of 500 MiB stalled other clients for 4 s (measured)."""

REDIS_LARGEST: Final = 64 * 1024 * 1024
"""Bytes of the largest value kept on a Redis server, which holds all values in memory."""

REDIS_CONNECTIONS: Final = 16
"""Commands under way to a Redis cluster at the same time: each needs a connection."""

LARGE_CALL: Final = 10 * 1024 * 1024
"""Bytes of a call to an executor above which a notice is shown: a large global is sent with every call."""

DASK_GATE: Final = 60.0
"""Seconds that a body on Dask waits until its kernel has published it, which takes milliseconds."""

INTERRUPT_GRACE: Final = 0.5
"""Seconds that an interrupt waits for a commit under way: nearly all end by then, unnoticed."""

EXIT_GRACE: Final = 10.0
"""Seconds that closing a store, or the end of the process, waits for commits under way."""

LOCK_POLL: Final = 0.001
"""Seconds between two attempts to get another process's lock: about as long as its transaction."""

CHECKED: Final = 0.001
"""Seconds for which the check of the files after a commit is the check before the next one."""

LOOKED: Final = 0.02
"""Seconds after which the write-ahead log is looked into again: SQLite begins it anew each 4 MB."""

IDLE: Final = 1.0
"""Seconds without a commit after which the database's file is made whole: a pause of the user's."""

READ_LIMIT: Final = 60.0
"""Seconds that a read of a database may take: 100,000 steps are read in a second (measured)."""

LOCK_NOTICE: Final = 2.0
"""Seconds after which a wait for another process's lock names that process: a transaction takes far less."""

SCHEMA_BUDGET: Final = 2
"""Seconds of processor time that the check of a value by a JSON schema may take: most take milliseconds."""

SCHEMA_PATIENCE: Final = 60.0
"""Seconds after which that check is given up, although it had no processor: a busy machine takes a second."""

SIGNAL_POLL: Final = 0.05
"""Seconds between two polls for a signal in a store without notifications: not noticeable."""

SIGNAL_GRACE: Final = 10.0
"""Seconds that a headless notebook waits for a signal: programs deliver theirs in less."""

WATCH: Final = 0.005
"""Seconds between two checks whether a store has changed: takes 4 % of a core meanwhile (measured)."""

WATCH_IDLE: Final = 0.032
"""Seconds between two checks once all waits are long ones: takes under 1 % of a core (measured)."""

WATCH_ALERT: Final = 10.0
"""Seconds after which a wait counts as a long one: programs answer faster, people rarely do."""

SLEEP_SLICE: Final = 1.0
"""Seconds of a durable sleep between two checks of the clock, which may be set, and of cancellation."""

ANSWER_POLL: Final = 0.05
"""Seconds between two checks whether a front end has sent an input."""

CELL_ON_EDIT: Final = "rerun"
"""Rerun: an edited cell should have the results of its new code, and so should cells that read them."""

CELL_ON_DRIFT: Final = "keep"
"""Keep: another value of a clock or a random generator does not justify repeating hours of work."""

LIVE_SECONDS: Final = 10.0
"""Seconds that a cell may have taken for statements of it to be executed again unasked, with other work."""

MAX_RESULT: Final = 4 * 1024**3
"""Bytes of the largest value that a durable cell keeps, unless that is more than half of the free disk."""

SMALL_DATABASE: Final = 64 * 2**20
"""Bytes up to which all pages of a database are checked when it is opened, which takes some 0.1 s at most."""

SWEEP_BUDGET: Final = 1.0
"""Seconds, before a cell and after it, to scan names it cannot reach: a longer scan is noticeable."""

TRIAL_BUDGET: Final = 10.0
"""Seconds that a commit waits until a new kind of object was loaded once, most of them for an import."""

TRIAL_LARGEST: Final = 64 * 1024 * 1024
"""Bytes of the largest names that are loaded once when they are saved: sending more takes noticeably long."""

OUTPUT_PATIENCE: Final = 1.0
"""Seconds to wait for output that bypassed sys.stdout: a child process may never stop writing."""

OUTPUT_POLL: Final = 0.001
"""Seconds between two checks whether that output has arrived: a kernel's thread needs less."""

SIGNAL_BACKSTOP: Final = 5.0
"""Seconds between two polls for a signal although Redis notifies of each: a notification may be lost."""

SIGNAL_CHECK: Final = 0.1
"""Seconds between two checks, with Redis notifications, whether a waiting run was cancelled or lost."""

TASK_FAILURE: Final = "caught"
"""Caught: a failure that ended the run is tried again, one that the run continued after is not."""

TASK_ON_EDIT: Final = "keep"
"""Keep: an edit of a task is often a log line; finished results stay, with a notice."""

TASK_ON_DRIFT: Final = "keep"
"""Keep: a file changes for many reasons; finished results stay, with a notice."""

TASK_ON_CHANGE: Final = "error"
"""Error: other arguments make another call, for which the recorded result would be wrong."""

WATCHED_ITEMS: Final = 1_000_000
"""Items in the arguments of a task that are noted before its body, to find what it changes in place: 0.1 s.
A KiB of an array counts as one."""
