"""The statements that a SQLite journal executes."""

# ruff: noqa: S608 - only constants are formatted into SQL

from __future__ import annotations

from typing import Final

from durable_nb.stores.sqlite.schema import MESSAGE, REQUEST, RUN, SIGNAL, STEP, excluded, marks
from durable_nb.stores.valid import LATEST

__all__ = [
    "DROP_EXPIRED",
    "DROP_LATE",
    "DROP_SIGNAL",
    "DROP_VERSIONS",
    "ENDED",
    "FIND_SIGNALS",
    "FINISH_RUN",
    "GET_EARLIER",
    "GET_REQUEST",
    "GET_RUN",
    "GET_SIGNAL",
    "GET_STEP",
    "GET_STEPS",
    "GET_VERSIONS",
    "IS_OURS",
    "KEEP_VERSION",
    "LIST_RUNS",
    "NEW_EPOCH",
    "OPEN_RUN",
    "OPEN_SIGNALS",
    "PUT_MESSAGE",
    "PUT_SIGNAL",
    "PUT_STEP",
    "RECEIVE",
    "RENAME_RUN",
    "REQUEST_SIGNAL",
    "RESET_STEP",
    "SET_ASIDE",
    "UNREAD",
    "WITHDRAW",
]

FINISHED: Final = "status, updated_at, result_format, result_data, result_blob, result_signature, standing"
ENDED: Final = f"{FINISHED}, crashes"

GET_RUN: Final = f"SELECT {RUN} FROM runs WHERE run_id = ?"
LIST_RUNS: Final = f"SELECT {RUN} FROM runs ORDER BY updated_at DESC, created_at DESC, run_id"
GET_STEPS: Final = f"SELECT {STEP} FROM steps WHERE run_id = ? ORDER BY recorded, step_id"
GET_STEP: Final = f"SELECT {STEP} FROM steps WHERE run_id = ? AND step_id = ?"
OPEN_RUN: Final = f"""
    INSERT INTO runs ({RUN}, sid) VALUES ({marks(RUN)}, ?) ON CONFLICT (run_id) DO UPDATE
    SET {excluded(f"{FINISHED}, owner, python, sid")}, epoch = runs.epoch + 1, passes = runs.passes + 1
    WHERE ? OR runs.epoch = ?"""
NEW_EPOCH: Final = "UPDATE runs SET epoch = (SELECT max(epoch) FROM runs) + 1 WHERE run_id = ? AND epoch = 0"
IS_OURS: Final = "SELECT 1 FROM runs WHERE run_id = ? AND epoch = ?"
PUT_STEP: Final = f"""
    INSERT INTO steps ({STEP}) SELECT {marks(STEP)} WHERE EXISTS ({IS_OURS})
    ON CONFLICT (run_id, step_id) DO UPDATE SET {excluded(STEP, "run_id", "step_id")}"""
KEEP_VERSION: Final = f"""
    INSERT OR REPLACE INTO versions ({STEP}) SELECT {STEP} FROM steps
    WHERE run_id = ? AND step_id = ? AND attempt < ? AND payload_format IS NOT NULL AND EXISTS ({IS_OURS})"""
GET_VERSIONS: Final = f"SELECT {STEP} FROM versions WHERE run_id = ? AND step_id = ? ORDER BY attempt"
GET_EARLIER: Final = f"""
    SELECT {STEP} FROM versions WHERE run_id = ? AND (SELECT status FROM steps
        WHERE steps.run_id = versions.run_id AND steps.step_id = versions.step_id) = 'started'
    ORDER BY step_id, attempt"""
DROP_VERSIONS: Final = "DELETE FROM versions WHERE run_id = ?"
FINISH_RUN: Final = f"""
    UPDATE runs SET ({ENDED}) = ({marks(ENDED)}) WHERE run_id = ? AND epoch = ?"""
RESET_STEP: Final = (
    f"UPDATE steps SET status = 'reset' WHERE run_id = ? AND step_id = ? AND EXISTS ({IS_OURS})"
)
_CHANGED: Final = "(checksum | ?3) - (checksum & ?3)"  # exclusive or
# changes() counts the rows of the previous statement: signals of a run that does not exist are not moved.
RENAME_RUN: Final = (
    f"""UPDATE runs SET run_id = ?1, sid = NULL, checksum = {_CHANGED},
        standing = {_CHANGED.replace("checksum", "standing")} WHERE run_id = ?2""",
    f"UPDATE signals SET run_id = ?1, checksum = {_CHANGED} WHERE run_id = ?2 AND changes() > 0",
    *(
        f"UPDATE {table} SET run_id = ?1, checksum = {_CHANGED} WHERE run_id = ?2"
        for table in ("steps", "versions", "requests", "messages")
    ),
)

GET_SIGNAL: Final = f"SELECT {SIGNAL} FROM signals WHERE run_id = ? AND name = ?"
FIND_SIGNALS: Final = f"""
    SELECT {SIGNAL} FROM signals WHERE (run_id, name) IN
        (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
PUT_SIGNAL: Final = f"""
    INSERT INTO signals ({SIGNAL}, expires_at) VALUES ({marks(SIGNAL)}, ?)
    ON CONFLICT (run_id, name) DO NOTHING"""
DROP_SIGNAL: Final = "DELETE FROM signals WHERE run_id = ? AND name = ? AND checksum IS ?"
SET_ASIDE: Final = f"""
    UPDATE signals SET name = ?1, checksum = {_CHANGED}
    WHERE run_id = ?2 AND name = ?4 AND delivered_by = ?5 AND delivered_at = ?6"""
DROP_EXPIRED: Final = tuple(
    f"""DELETE FROM {table} WHERE expires_at < ?
        AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = {table}.run_id)"""
    for table in ("signals", "messages")
)
DROP_LATE: Final = tuple(  # in the transaction that has created the run
    f"""DELETE FROM {table} WHERE run_id = ?1 AND expires_at < ?2
        AND (SELECT passes FROM runs WHERE run_id = ?1) = 1"""
    for table in ("signals", "messages")
)
PUT_MESSAGE: Final = f"""
    INSERT INTO messages ({MESSAGE}, expires_at)
    SELECT {", ".join(f"?{n}" for n in range(1, 10))}, number, (?10 | number) - (?10 & number), ?11
    FROM (SELECT coalesce(max(number), 0) + 1 AS number FROM messages WHERE run_id = ?1 AND topic = ?2)
    WHERE true ON CONFLICT (run_id, topic, delivery) DO NOTHING"""
UNREAD: Final = f"""
    SELECT {MESSAGE} FROM messages WHERE run_id = ? AND topic = ? AND received_at IS NULL
    ORDER BY number LIMIT ?"""
RECEIVE: Final = f"""
    UPDATE messages SET (payload_format, payload_data, payload_blob, payload_signature, received_at,
        checksum) = (?, ?, ?, ?, ?, ?)
    WHERE run_id = ? AND topic = ? AND number = ? AND EXISTS ({IS_OURS})"""
REQUEST_SIGNAL: Final = f"""
    INSERT INTO requests ({REQUEST}) SELECT {marks(REQUEST)}
    WHERE ? IS NULL OR EXISTS (SELECT 1 FROM runs WHERE run_id = ? AND epoch = ?)
    ON CONFLICT (run_id, name) DO UPDATE
    SET {excluded(REQUEST, "run_id", "name", "asked_at")}, asked_at = CASE
        WHEN requests.asked_at BETWEEN 0 AND {LATEST} THEN requests.asked_at ELSE excluded.asked_at END"""
GET_REQUEST: Final = f"SELECT {REQUEST} FROM requests WHERE run_id = ? AND name = ?"
WITHDRAW: Final = "DELETE FROM requests WHERE run_id = ? AND name = ?"
OPEN_SIGNALS: Final = f"""
    SELECT {REQUEST} FROM requests WHERE NOT EXISTS
        (SELECT 1 FROM signals WHERE signals.run_id = requests.run_id AND signals.name = requests.name)
    ORDER BY asked_at, run_id, name"""
