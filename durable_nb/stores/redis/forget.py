"""Take a run or a step out of a Redis server."""

from __future__ import annotations

from dataclasses import dataclass

from durable_nb.errors import InvalidOption, ListRuns, StepNotFound
from durable_nb.records import Run, RunStatus, signal_step
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.errors import lost_run, unknown_run
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.connection import Connection, run_script
from durable_nb.stores.redis.keys import Keys
from durable_nb.stores.sqlite.forget import Target

__all__ = ["Forgetter"]

_ON_DISK = "the server's files hold it until they are written anew: redis-cli BGREWRITEAOF, redis-cli BGSAVE"


@dataclass(frozen=True, slots=True)
class Forgetter:
    """Takes runs and steps out.

    Args:
        keys: The names of the keys.
        connection: The connection to the server.
        rows: Makes rows with their checksums.
        location: The server, for messages.
    """

    keys: Keys
    connection: Connection
    rows: CheckedRows
    location: str

    async def forget(self, target: Target, run: Run | None) -> list[str]:
        """Take a run or a step out, and return what was done, one line each.

        Args:
            target: The run or the step.
            run: The run as recorded. One that is done is entered again: its result rests on the step.

        Raises:
            InvalidOption: The values alone are to be forgotten.
            RunNotFound: The server has no such run.
            StepNotFound: The run has no such step.
            RunHeld: Another process has opened the run meanwhile.
        """
        if target.value_only:
            raise InvalidOption("invalid --value: a Redis server has no values without their steps")
        key = self.keys.run(target.run_id)
        epoch = await self.connection.call("HGET", key, b"epoch")
        fields = await self.connection.call("HKEYS", key)
        if epoch is None or b"made" not in fields:
            raise unknown_run(target.run_id, self.location)
        found = [field for field in fields if _is_of(field, target.step_id)]
        if target.step_id is not None and not found:
            remedy = ("To list the runs: ", ListRuns(db=self.location))
            raise StepNotFound(
                "no step of that name", run_id=target.run_id, step=target.step_id, remedy=remedy
            )
        named = [] if target.step_id is None else found
        keys = self.keys.both(target.run_id)
        if not await run_script(self.connection, scripts.FORGET, keys, epoch, self._standing(run), *named):
            raise lost_run(target.run_id, None)
        if target.step_id is None:
            await self._unlist(target.run_id)
        return [f"forgot {len(found):,} records of run {target.run_id!r}", _ON_DISK]

    def _standing(self, run: Run | None) -> str:
        """Return the new status of a run that was done; empty if it keeps its own."""
        if run is None or run.status is not RunStatus.DONE:
            return ""
        again = run._replace(status=RunStatus.INTERRUPTED, result=None)
        return str(encoding.packed_run(self.rows.run_row(again))[-1])

    async def _unlist(self, run_id: str) -> None:
        for index in (self.keys.runs, self.keys.asking):
            await self.connection.call("ZREM", index, encoding.encode_id(run_id))


def _is_of(field: bytes, step_id: str | None) -> bool:
    """Return whether a field holds a record of a step, of one inside it, or of its signal."""
    kind, _, name = encoding.decode_id(field).partition(":")
    if not name or step_id is None:
        return bool(name)
    if kind in ("g", "q"):
        return signal_step(name.partition("~")[0]) == step_id or signal_step(name) == step_id
    if kind not in ("s", "v"):
        return False
    name = name.partition(":")[2] if kind == "v" else name
    return name == step_id or name.startswith(f"{step_id}/")
