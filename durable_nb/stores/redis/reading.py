"""Reading a run from the fields of its hash."""

from __future__ import annotations

from collections.abc import Mapping

from durable_nb.records import RunSnapshot
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.redis import encoding
from durable_nb.stores.redis.chunks import Chunks
from durable_nb.stores.rows import STEP_PAYLOAD, recorded_at

__all__ = ["read_snapshot"]


async def read_snapshot(
    run_id: str, fields: Mapping[bytes, bytes], chunks: Chunks, rows: CheckedRows
) -> RunSnapshot | None:
    """Return a run and its steps, or None if the fields are not those of a run.

    Args:
        run_id: The run.
        fields: All its fields.
        chunks: The chunks of its large values.
        rows: Makes records of its rows.

    Raises:
        StoreUnreadable: The record of the run is damaged; steps are checked when they are read.
    """
    run = encoding.run_row(run_id, fields)
    if run is None:
        return None
    steps = sorted(await chunks.all_joined(encoding.step_rows(run_id, fields), STEP_PAYLOAD), key=recorded_at)
    return RunSnapshot(rows.run(await chunks.whole_run(run)), rows.steps(steps))
