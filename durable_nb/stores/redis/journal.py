"""The Redis journal: one hash per run, written by scripts that check the run's epoch."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from durable_nb import settings
from durable_nb.concurrency.forking import UNOPENED, check_process, forks, is_inherited
from durable_nb.errors import (
    DurableError,
    DurableNotice,
    OpenRun,
    RunHeld,
    StoreUnavailable,
)
from durable_nb.errors.redaction import redacted_message
from durable_nb.records import (
    Message,
    Payload,
    Progress,
    Run,
    RunSnapshot,
    RunStatus,
    SignalRequest,
    Step,
    StepStatus,
)
from durable_nb.stores.base import ENDED
from durable_nb.stores.blobs.folder import Blobs
from durable_nb.stores.blobs.remote import BlobPlace, blobs_at
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.errors import check_found, id_taken, lost_run, unknown_run
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.chunks import Chunks
from durable_nb.stores.redis.connection import ClusterConnection, Connection, run_script
from durable_nb.stores.redis.deliveries import Deliveries
from durable_nb.stores.redis.errors import lost_writes_notice, other_slot, run_forgotten
from durable_nb.stores.redis.keys import Keys, same_slot
from durable_nb.stores.redis.lifetimes import checked_ttl
from durable_nb.stores.redis.notifications import DeliveryListener
from durable_nb.stores.redis.reading import read_snapshot
from durable_nb.stores.redis.run_index import RunIndex
from durable_nb.stores.redis.server import connect
from durable_nb.stores.redis.sessions import RedisSessions, read_fields
from durable_nb.stores.redis.trust import TrustSigner
from durable_nb.stores.redis.unsynced import UnsyncedWrites
from durable_nb.stores.rows import STEP_PAYLOAD
from durable_nb.stores.urls import with_options, without_options

__all__ = ["RedisJournal"]

_OPTIONS = ("prefix", "ttl", "blobs")
_FIXED = ("protocol", "decode_responses")


class RedisJournal(Deliveries):
    """Keeps runs on a Redis server or cluster, shared by any number of processes and machines.

    Args:
        url: ``redis://HOST:PORT/0``, or ``rediss://`` for TLS; the URL of any server of a cluster. It
            may contain the other options: ``redis://HOST:PORT/0?prefix=shop``.
        ttl: Seconds after which a run that has ended is deleted, and signals and messages for a run that has
            not begun; None to keep them. Open runs are always kept.
        prefix: The text that all keys begin with; ``durable`` by default.
        blobs: The place of payloads above 256 KiB: a folder that all machines share, or a URL such as
            ``s3://bucket/path``. By default they are kept on the server, up to 64 MiB each.

    Raises:
        InvalidOption: An argument, or an option in the URL, is invalid.

    Example:
        >>> journal = RedisJournal("redis://localhost:6379/0", ttl=7 * 86400)
        >>> wf = Workflow("etl", db=journal)
    """

    has_leases = True

    def __init__(
        self,
        url: str = settings.REDIS_URL,
        *,
        ttl: int | None = None,
        prefix: str | None = None,
        blobs: BlobPlace | None = None,
    ) -> None:
        address, in_url = without_options(url, _OPTIONS)
        self._url, _ = without_options(address, _FIXED)
        self._ttl = checked_ttl(in_url.get("ttl") if ttl is None else ttl)
        prefix = in_url.get("prefix", settings.REDIS_PREFIX) if prefix is None else prefix
        self._keys = Keys(prefix)
        self._rows = CheckedRows(prefix)
        blobs = in_url.get("blobs") if blobs is None else blobs
        self._blobs = None if blobs is None else blobs_at(blobs)
        shown = {"prefix": prefix} if prefix != settings.REDIS_PREFIX else {}
        shown |= {"blobs": redacted_message(str(blobs))} if isinstance(blobs, str | Path) else {}
        self._location = with_options(redacted_message(address), shown)
        self._setup_lock = asyncio.Lock()
        self._closed = False
        self._forks = UNOPENED
        self._open_connection: Connection | None = None
        self._open_session: RedisSessions | None = None
        self._unsynced = UnsyncedWrites()
        self._received: dict[tuple[str, str], bytes] = {}  # the fields of the messages of steps of open runs
        self._listener = DeliveryListener(self._url, self._keys.channel)

    @property
    def location(self) -> str:
        """The server's URL without its password, and with the options that select the data."""
        return self._location

    @property
    def address(self) -> str:
        """The ``location``; the user must add the password."""
        return self._location

    @property
    def identity(self) -> str:
        """The prefix of the keys."""
        return self._rows.database

    @property
    def blobs(self) -> Blobs | None:
        """The place of large payloads; None if they are kept on the server."""
        return self._blobs

    @property
    def closed(self) -> bool:
        """True after ``close``, and in a forked child."""
        return self._closed or is_inherited(self._forks)

    async def setup(self) -> None:
        """Connect to the server, and warn of settings by which it would lose data."""
        async with self._setup_lock:
            if self._closed:
                raise self._closed_error()
            if self._open_connection is None:
                self._forks = forks()
                self._open_connection = await connect(self._url, self._keys, self.location)
                self._open_session = RedisSessions(self._keys, self._open_connection, self._rows)

    async def close(self) -> None:
        """Send the waiting commands, then disconnect; later calls raise ``StoreUnavailable``."""
        self._closed = True
        async with self._setup_lock:
            connection, self._open_connection = self._open_connection, None
            self._listener.stop()
            if connection is None or self._open_session is None:
                return
            with suppress(DurableError, TimeoutError):  # an unreachable server drops the session by itself
                async with asyncio.timeout(settings.EXIT_GRACE):
                    await self._open_session.end()
            await connection.close()

    async def open_run(self, opening: Run, *, take_over: bool = False) -> RunSnapshot:
        """Create the run, or open it again under the next epoch; see ``Journal.open_run``."""
        sessions, run_id = self._sessions, opening.run_id
        new = opening._replace(result=None)
        given = await self._chunks.put(run_id, new.given)
        kept = b"" if given is None else encoding.packed("", (), given)
        words = (*encoding.packed_run(self._rows.run_row(new)), sessions.token, kept)
        await asyncio.gather(sessions.start(), self._runs.add(run_id))
        while True:  # another process may open the run after its owner was checked
            token = uuid.uuid4().hex
            epoch = None if take_over else await sessions.free_epoch(run_id)
            check_found(opening, epoch)
            expected = "" if take_over else str(epoch or 0)
            opened = await self._script(scripts.OPEN, run_id, token, expected, *words)
            snapshot = await self.read_run(run_id) if opened else None
            if snapshot is not None and snapshot.run.epoch == opened:
                break
            await self.get_run(run_id)  # raises if the run is damaged: it would never be opened
        if snapshot.run.passes > 1:
            await self._chunks.drop(run_id, given)
        self._unsynced.begin(snapshot.run, token)
        sessions.hold(snapshot.run)
        return snapshot

    async def check_owner(self, run_id: str) -> None:
        """Raise ``RunHeld`` if ``open_run`` would, and change nothing."""
        await self._sessions.free_epoch(run_id)

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:
        """Call ``lost`` with the next heartbeat after another process has opened the run."""
        self._sessions.watch(run, lost)

    async def abandoned(self) -> frozenset[str]:
        """Return the ids of runs recorded as running or waiting whose owners are known to be dead."""
        owners = await self._sessions.find_owners(await self._runs.run_ids())
        return frozenset(owner.run_id for owner in owners.values() if self._sessions.is_abandoned(owner))

    async def get_run(self, run_id: str) -> Run | None:
        """Return the run without its steps, or None."""
        (fields,) = await read_fields(self._connection, self._keys, [run_id])
        row = encoding.run_row(run_id, fields)
        return None if row is None else self._rows.run(await self._chunks.whole_run(row))

    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """Return the run and its steps, or None."""
        return await read_snapshot(run_id, await self._fields(run_id), self._chunks, self._rows)

    async def list_runs(self) -> Sequence[Run]:
        """Return all runs, the one with the latest ``updated_at`` first."""
        run_ids = await self._runs.run_ids()
        found = await read_fields(self._connection, self._keys, run_ids, strict=False)
        read = [encoding.run_row(run_id, fields) for run_id, fields in zip(run_ids, found, strict=True)]
        rows = await asyncio.gather(*(self._chunks.whole_run(row) for row in read if row is not None))
        await self._runs.remove([run_id for run_id, row in zip(run_ids, read, strict=True) if row is None])
        runs = map(self._rows.run_or_damaged, rows)
        return sorted(runs, key=lambda run: (-run.updated_at, -run.created_at, run.run_id))

    async def progress(self) -> Mapping[str, Progress]:
        """Return the progress of each run."""
        run_ids = await self._runs.run_ids()
        counted = await asyncio.gather(*(self._script(scripts.PROGRESS, run_id) for run_id in run_ids))
        return {
            run_id: Progress(done, tuple(sorted(encoding.decode_id(field[2:]) for field in awaited)))
            for run_id, (done, *awaited) in zip(run_ids, counted, strict=True)
        }

    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Rename a run with its steps, its signals, its messages and its requests."""
        if new_id == run_id:
            raise id_taken(run_id, new_id)
        if isinstance(self._connection, ClusterConnection) and not same_slot(run_id, new_id):
            known = await self.get_run(run_id)
            raise unknown_run(run_id, self.address) if known is None else other_slot(run_id, new_id)
        await asyncio.gather(self._runs.add(new_id), self._waiting.add(new_id))
        keys = (*self._keys.both(run_id), *self._keys.both(new_id))
        words = uuid.uuid4().hex, self._rows.renamed_run(run_id, new_id)
        answer = await run_script(self._connection, scripts.RENAME, keys, *words)
        if answer == b"taken":
            raise id_taken(run_id, new_id)
        if answer == b"missing":
            raise unknown_run(run_id, self.address)
        self._unsynced.forget(run_id)

    async def put_step(self, step: Step) -> None:
        """Record a step in place of its previous record; fenced by ``step.epoch``."""
        written = await self._put_step(step)
        await self._write_again(step.run_id, *self._unsynced.missing(step.run_id, step.epoch, written))

    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """Return a step as it was last recorded, or None."""
        field = encoding.step_field(step_id)
        value = await self._connection.call("HGET", self._keys.run(run_id), field)
        rows = encoding.step_rows(run_id, {} if value is None else {field: value})
        return self._rows.steps(await self._chunks.all_joined(rows, STEP_PAYLOAD))[0] if rows else None

    async def versions(self, run_id: str, step_id: str) -> Sequence[Step]:
        """Return the earlier results of a step, the oldest first."""
        key = self._keys.run(run_id)
        names = encoding.version_fields(await self._connection.call("HKEYS", key), step_id)
        values = await self._connection.call("HMGET", key, *names) if names else []
        rows = encoding.version_rows(run_id, step_id, values)
        return self._rows.steps(await self._chunks.all_joined(rows, STEP_PAYLOAD))

    async def drop_versions(self, run_id: str) -> int:
        """Delete the earlier results of a run's steps, and return how many there were."""
        return int(await self._script(scripts.DROP_VERSIONS, run_id))

    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result`` and ``updated_at`` of a run; fenced by ``run.epoch``."""
        payload = await self._chunks.put(run.run_id, run.result)
        result = b"" if payload is None else encoding.packed("", (), payload)
        ttl = self._ttl if self._ttl is not None and run.status in ENDED else 0
        *_, standing = encoding.packed_run(self._rows.run_row(run))
        words = (*self._unsynced.fence(run.run_id, run.epoch), standing, result, ttl, run.crashes)
        answer = await self._script(scripts.FINISH, run.run_id, *words)
        ended = run.status not in (RunStatus.RUNNING, RunStatus.WAITING)
        if answer and ended:  # otherwise writes of steps may be under way
            missing = self._unsynced.missing(run.run_id, run.epoch, answer - 1, settled=True)
            await self._write_again(run.run_id, *missing)
        if ended or not answer:
            self._sessions.let_go(run)
            self._unsynced.end(run)
            self._received = {key: field for key, field in self._received.items() if key[0] != run.run_id}
        if not answer:
            await self._chunks.drop(run.run_id, payload)
            raise await self._lost(run.run_id, run.epoch)

    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps as ``reset``, and return how many of them exist; fenced by ``run.epoch``."""
        fields = {encoding.step_field(step_id) for step_id in step_ids}
        words = (*self._unsynced.fence(run.run_id, run.epoch), StepStatus.RESET.value, *fields)
        answer: int = await self._script(scripts.RESET, run.run_id, *words)
        if not answer:
            raise await self._lost(run.run_id, run.epoch)
        self._unsynced.reset(run, set(step_ids))
        return answer - 1

    async def receive(self, message: Message, step: Step) -> None:
        """Record a step, and delete the message that it has received."""
        self._received[step.run_id, step.step_id] = encoding.message_field(message)
        await self.put_step(step)

    async def version(self) -> Hashable:
        """Return the number of notifications so far, which increases every few seconds in any case."""
        self._check_open()
        self._listener.listen()
        return self._listener.count()

    async def until_changed(self, pause: float) -> None:
        """Wait for a notification, at most ``pause`` or ``SIGNAL_CHECK`` seconds, whichever is longer."""
        await self._listener.wait(max(pause, settings.SIGNAL_CHECK))

    async def request_signal(self, request: SignalRequest, step: Step | None = None) -> SignalRequest:
        """Record a request for a signal, and the step that waits for it, in one script."""
        await self._waiting.add(request.run_id)
        field = encoding.request_field(request.name)
        words = (field, *encoding.packed_request(self._rows.request_row(request)))
        if step is None:
            _, value = await self._script(scripts.REQUEST_SIGNAL, request.run_id, "", "", "", "", *words)
        else:
            written, value = await self._send(scripts.REQUEST_SIGNAL, step, step.payload, *words)
            await self._write_again(step.run_id, *self._unsynced.missing(step.run_id, step.epoch, written))
        return self._rows.request(encoding.request_row(request.run_id, field, value))

    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Delete a request."""
        await self._connection.call("HDEL", self._keys.run(run_id), encoding.request_field(name))

    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """Return a run's request for a signal of that name, or None."""
        field = encoding.request_field(name)
        value = await self._connection.call("HGET", self._keys.run(run_id), field)
        return None if value is None else self._rows.request(encoding.request_row(run_id, field, value))

    async def open_signals(self) -> Sequence[SignalRequest]:
        """Return the requests for signals that were not delivered yet, the oldest first."""
        run_ids = await self._waiting.run_ids()
        found = await asyncio.gather(*(self._script(scripts.UNANSWERED, run_id) for run_id in run_ids))
        await self._waiting.remove(run_id for run_id, words in zip(run_ids, found, strict=True) if not words)
        requests = [
            self._rows.request_or_damaged(encoding.request_row(run_id, field, value))
            for run_id, words in zip(run_ids, found, strict=True)
            for field, value in zip(words[::2], words[1::2], strict=True)
        ]
        return sorted(requests, key=lambda request: (request.asked_at, request.run_id, request.name))

    @property
    def _connection(self) -> Connection:
        self._check_open()
        assert self._open_connection is not None
        return self._open_connection

    @property
    def _sessions(self) -> RedisSessions:
        self._check_open()
        assert self._open_session is not None
        return self._open_session

    @property
    def _runs(self) -> RunIndex:
        return RunIndex(self._keys.runs, self._connection)

    @property
    def trust_signer(self) -> TrustSigner:
        """The signer of untrusted checkpoints, which serves a command and is no part of a run."""
        return TrustSigner(self._keys, self._connection, self._chunks, self._runs, self.identity)

    @property
    def _waiting(self) -> RunIndex:
        return RunIndex(self._keys.asking, self._connection)

    @property
    def _chunks(self) -> Chunks:
        return Chunks(self._keys, self._connection)

    async def _lost(self, run_id: str, epoch: int, *, step: str | None = None) -> RunHeld:
        """Return the error for a refused write: the run was opened elsewhere, or the server has lost it."""
        epoch_there = await self._connection.call("HGET", self._keys.run(run_id), b"epoch")
        if int(epoch_there or 0) < epoch:
            return run_forgotten(self.location, run_id, step)
        return lost_run(run_id, await self.get_run(run_id), step=step)

    async def _put_step(self, step: Step, *, again: bool = False) -> int:
        """Record a step, and return how many writes the server has counted.

        With ``again``, a step that was sent anew since is not written over.
        """
        payload = await self._chunks.put(step.run_id, step.payload, step=step.step_id)
        if again and not self._unsynced.is_newest(step):
            await self._chunks.drop(step.run_id, payload)
            return 0
        received = self._received.get((step.run_id, step.step_id))
        put = (scripts.PUT_STEP,) if received is None else (scripts.RECEIVE, received)
        written, _ = await self._send(put[0], step, payload, *put[1:])
        return written

    async def _send(
        self, script: scripts.Script, step: Step, payload: Payload | None, *words: Any
    ) -> tuple[int, Any]:
        """Send a step with a script; return how many writes the server has counted, and its other answer."""
        fence = self._unsynced.fence(step.run_id, step.epoch)
        differs = self._unsynced.note_sent(step)
        value = encoding.packed_step(self._rows.step_row(step), payload)
        put = (*fence, encoding.step_field(step.step_id), value)
        found = await self._script(script, step.run_id, *put, *words)
        answer, *rest = found if isinstance(found, list) else [found]
        if not answer:
            await self._chunks.drop(step.run_id, payload)
            raise await self._lost(step.run_id, step.epoch, step=step.step_id)
        self._unsynced.note_acknowledged(step, abs(answer) - 1, counted=differs or answer > 0)
        return abs(answer) - 1, next(iter(rest), None)

    async def _write_again(self, run_id: str, lost: int, steps: Sequence[Step]) -> None:
        if lost:
            await asyncio.gather(*(self._put_step(step, again=True) for step in steps))
            warnings.warn(lost_writes_notice(self.location, run_id, lost), DurableNotice, stacklevel=2)

    async def _fields(self, run_id: str) -> dict[bytes, bytes]:
        words = await self._connection.call("HGETALL", self._keys.run(run_id))
        return dict(zip(words[::2], words[1::2], strict=True))

    async def _script(self, script: scripts.Script, run_id: str, *words: Any) -> Any:
        return await run_script(self._connection, script, self._keys.both(run_id), *words)

    def _check_open(self) -> None:
        check_process(self._forks)
        if self._closed:
            raise self._closed_error()
        if self._open_connection is None:
            raise StoreUnavailable(f"{self.location!r} is not open yet", remedy="Call await setup() first.")

    def _closed_error(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.location!r} was closed",
            remedy=("Open it again: ", OpenRun(), ", or open_journal(url)."),
        )
