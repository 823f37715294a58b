"""The Redis journal: one hash a run, written by scripts that compare the epoch first."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from durable_nb import settings
from durable_nb.errors import (
    DurableError,
    DurableNotice,
    InvalidOption,
    OpenRun,
    RunHeld,
    StoreError,
    StoreUnavailable,
)
from durable_nb.records import Progress, Run, RunSnapshot, RunStatus, Step, StepStatus
from durable_nb.stores.base import ENDED
from durable_nb.stores.blobs.folder import Blobs
from durable_nb.stores.blobs.remote import BlobPlace, blobs_at
from durable_nb.stores.errors import id_taken, lost_run, unknown_run
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.chunks import Chunks
from durable_nb.stores.redis.connection import Link, Spread, run_script
from durable_nb.stores.redis.errors import forgotten, written_again
from durable_nb.stores.redis.keys import Keys, same_slot
from durable_nb.stores.redis.notifications import DeliveryListener
from durable_nb.stores.redis.run_index import RunIndex
from durable_nb.stores.redis.server import reached
from durable_nb.stores.redis.sessions import RedisSessions, read_fields
from durable_nb.stores.redis.signals import RedisSignals
from durable_nb.stores.redis.trust import Notary
from durable_nb.stores.redis.unsynced import UnsyncedWrites
from durable_nb.stores.urls import with_options, without_options, without_password

__all__ = ["RedisJournal"]

_OPTIONS = ("prefix", "ttl", "blobs")
_FIXED = ("protocol", "decode_responses")


class RedisJournal(RedisSignals):
    """Runs on a Redis server or cluster, shared with any number of processes and machines.

    Args:
        url: ``redis://HOST:PORT/0``, or ``rediss://`` for TLS; any server of a cluster. It may name the other
            options: ``redis://HOST:PORT/0?prefix=shop``.
        ttl: Seconds after which a run that has ended is forgotten; never, if not given. A run that is open is
            always kept.
        prefix: What all its keys begin with; ``durable`` if not given.
        blobs: Where payloads above 256 KiB go: a folder that all share, or a URL such as ``s3://bucket/path``.
            Without it they are kept on the server, up to 64 MiB each.

    Raises:
        InvalidOption: One of them makes no sense.

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
        self._ttl = _seconds(in_url.get("ttl") if ttl is None else ttl)
        prefix = in_url.get("prefix", settings.REDIS_PREFIX) if prefix is None else prefix
        self._keys = Keys(prefix)
        blobs = in_url.get("blobs") if blobs is None else blobs
        self._blobs = None if blobs is None else blobs_at(blobs)
        said = {"prefix": prefix} if prefix != settings.REDIS_PREFIX else {}
        said |= {"blobs": without_password(str(blobs))} if isinstance(blobs, str | Path) else {}
        self._location = with_options(without_password(address), said)
        self._changing = asyncio.Lock()
        self._closed = False
        self._open: Link | None = None
        self._sessions: RedisSessions | None = None
        self._passes = UnsyncedWrites()
        self._bell = DeliveryListener(self._url, self._keys.channel)

    @property
    def location(self) -> str:
        """The server's URL, without its password, and with the options that belong to the place."""
        return self._location

    @property
    def address(self) -> str:
        """The same: who has a password knows where to put it."""
        return self._location

    @property
    def blobs(self) -> Blobs | None:
        """Where large payloads are kept, if not on the server."""
        return self._blobs

    @property
    def closed(self) -> bool:
        """Whether it is of no more use."""
        return self._closed

    async def setup(self) -> None:
        """Reach the server, and say what of its settings would lose data."""
        async with self._changing:
            if self._closed:
                raise self._shut()
            if self._open is None:
                self._open = await reached(self._url, self._keys, self.location)
                self._sessions = RedisSessions(self._keys, self._open)

    async def close(self) -> None:
        """Send what is waiting, then hang up. Whatever is called from now on is refused."""
        self._closed = True
        async with self._changing:
            link, self._open = self._open, None
            self._bell.silence()
            if link is None or self._sessions is None:
                return
            with suppress(DurableError, TimeoutError):  # a server that is gone forgets the session by itself
                async with asyncio.timeout(settings.EXIT_GRACE):
                    await self._sessions.end()
            await link.close()

    async def open_run(self, opening: Run, *, take_over: bool = False) -> RunSnapshot:
        """Create the run, or take it over for another pass, under the next epoch."""
        sessions, run_id = self._lease, opening.run_id
        words = (encoding.made(opening), encoding.opened(opening), encoding.standing(opening), sessions.token)
        await asyncio.gather(sessions.enrol(), self._runs.note(run_id))
        while True:  # until nobody else opens it between our look at its owner and our reading
            token = uuid.uuid4().hex
            epoch = "" if take_over else str(await sessions.free_epoch(run_id) or 0)
            opened = await self._script(scripts.OPEN, run_id, token, epoch, *words)
            snapshot = await self.read_run(run_id) if opened else None
            if snapshot is not None and snapshot.run.epoch == opened:
                break
        self._passes.begin(snapshot.run, token)
        sessions.hold(snapshot.run)
        return snapshot

    async def check_owner(self, run_id: str) -> None:
        """Raise ``RunHeld`` as ``open_run`` would; changes nothing."""
        await self._lease.free_epoch(run_id)

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:
        """Have the owner of a run told with the next sign of life if somebody else has opened it."""
        self._lease.watch(run, lost)

    async def abandoned(self) -> frozenset[str]:
        """The runs that are recorded as running or waiting, and whose owners are known to be dead."""
        owners = await self._lease.find_owners(await self._runs.run_ids())
        return frozenset(owner.run_id for owner in owners.values() if self._lease.is_abandoned(owner))

    async def get_run(self, run_id: str) -> Run | None:
        """The run alone, or None."""
        (fields,) = await read_fields(self._link, self._keys, [run_id])
        run = encoding.read_run(run_id, fields)
        return await self._whole_run(run) if run else None

    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """The run and its steps, or None."""
        words = await self._link.call("HGETALL", self._keys.run(run_id))
        fields = dict(zip(words[::2], words[1::2], strict=True))
        run = encoding.read_run(run_id, fields)
        if run is None:
            return None
        steps, chunks = encoding.read_steps(run_id, fields), self._chunks
        in_pieces = [number for number, step in enumerate(steps) if chunks.has(step.payload)]
        whole = await asyncio.gather(*(self._whole_step(steps[number]) for number in in_pieces))
        for number, step in zip(in_pieces, whole, strict=True):
            steps[number] = step
        steps.sort(key=attrgetter("recorded_seq", "step_id"))
        return RunSnapshot(await self._whole_run(run), tuple(steps))

    async def list_runs(self) -> Sequence[Run]:
        """All runs, the one with the latest ``updated_at`` first."""
        run_ids = await self._runs.run_ids()
        found = await read_fields(self._link, self._keys, run_ids)
        known = [encoding.read_run(run_id, fields) for run_id, fields in zip(run_ids, found, strict=True)]
        runs = await asyncio.gather(*(self._whole_run(run) for run in known if run))
        await self._runs.forget([run_id for run_id, run in zip(run_ids, known, strict=True) if run is None])
        return sorted(runs, key=lambda run: (-run.updated_at, -run.created_at, run.run_id))

    async def progress(self) -> Mapping[str, Progress]:
        """How far each run has come."""
        run_ids = await self._runs.run_ids()
        counted = await asyncio.gather(*(self._script(scripts.PROGRESS, run_id) for run_id in run_ids))
        return {
            run_id: Progress(done, tuple(sorted(encoding.text(field[2:]) for field in awaited)))
            for run_id, (done, *awaited) in zip(run_ids, counted, strict=True)
        }

    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Set a run and all that belongs to it aside under another id."""
        if new_id == run_id:
            raise id_taken(run_id, new_id)
        if isinstance(self._link, Spread) and not same_slot(run_id, new_id):
            await self._refuse_other_slot(run_id, new_id)
        await asyncio.gather(self._runs.note(new_id), self._asking.note(new_id))
        keys = (*self._keys.both(run_id), *self._keys.both(new_id))
        answer = await run_script(self._link, scripts.RENAME, keys, uuid.uuid4().hex)
        if answer == b"taken":
            raise id_taken(run_id, new_id)
        if answer == b"missing":
            raise unknown_run(run_id)
        self._passes.leave(run_id)

    async def put_step(self, step: Step) -> None:
        """Record a step, over what was recorded under its id; fenced by ``step.epoch``."""
        written = await self._put_step(step)
        await self._write_again(step.run_id, *self._passes.missing(step.run_id, step.epoch, written))

    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """One step as it was last recorded, or None."""
        field = encoding.step_field(step_id)
        value = await self._link.call("HGET", self._keys.run(run_id), field)
        steps = encoding.read_steps(run_id, {} if value is None else {field: value})
        return await self._whole_step(steps[0]) if steps else None

    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result`` and ``updated_at`` of a run; fenced by ``run.epoch``."""
        payload = await self._chunks.put(run.run_id, run.result)
        result = b"" if payload is None else encoding.packed("", (), payload)
        ttl = self._ttl if self._ttl is not None and run.status in ENDED else 0
        words = (*self._passes.fence(run.run_id, run.epoch), encoding.standing(run), result, ttl)
        answer = await self._script(scripts.FINISH, run.run_id, *words)
        over = run.status not in (RunStatus.RUNNING, RunStatus.WAITING)
        if answer and over:  # else some steps may be on their way
            missing = self._passes.missing(run.run_id, run.epoch, answer - 1, settled=True)
            await self._write_again(run.run_id, *missing)
        if over or not answer:
            self._lease.let_go(run)
            self._passes.end(run)
        if not answer:
            await self._chunks.drop(run.run_id, payload)
            raise await self._lost(run.run_id, run.epoch)

    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps ``reset``; gives how many of them there were; fenced by ``run.epoch``."""
        fields = {encoding.step_field(step_id) for step_id in step_ids}
        words = (*self._passes.fence(run.run_id, run.epoch), StepStatus.RESET.value, *fields)
        answer: int = await self._script(scripts.RESET, run.run_id, *words)
        if not answer:
            raise await self._lost(run.run_id, run.epoch)
        self._passes.reset(run, set(step_ids))
        return answer - 1

    @property
    def _link(self) -> Link:
        self._check_open()
        assert self._open is not None
        return self._open

    @property
    def _lease(self) -> RedisSessions:
        self._check_open()
        assert self._sessions is not None
        return self._sessions

    @property
    def _runs(self) -> RunIndex:
        return RunIndex(self._keys.runs, self._link)

    @property
    def notary(self) -> Notary:
        """Who signs what others have made: for a person in a terminal, and no part of a run."""
        return Notary(self._keys, self._link, self._chunks, self._runs)

    @property
    def _chunks(self) -> Chunks:
        return Chunks(self._keys, self._link)

    async def _lost(self, run_id: str, epoch: int, *, step: str | None = None) -> RunHeld:
        """The error for a write that was refused: the run is another's, or the server has forgotten it."""
        there = await self._link.call("HGET", self._keys.run(run_id), b"epoch")
        if int(there or 0) < epoch:
            return forgotten(self.location, run_id, step)
        return lost_run(run_id, await self.get_run(run_id), step=step)

    async def _put_step(self, step: Step, *, again: bool = False) -> int:
        """Record a step, one that is written again over no newer record; gives how many the server counts."""
        payload = await self._chunks.put(step.run_id, step.payload, step=step.step_id)
        if again and not self._passes.is_newest(step):
            await self._chunks.drop(step.run_id, payload)
            return 0
        fence, other = self._passes.fence(step.run_id, step.epoch), self._passes.send(step)
        words = (encoding.step_field(step.step_id), encoding.packed_step(step, payload))
        answer: int = await self._script(scripts.PUT_STEP, step.run_id, *fence, *words)
        if not answer:
            await self._chunks.drop(step.run_id, payload)
            raise await self._lost(step.run_id, step.epoch, step=step.step_id)
        self._passes.wrote(step, abs(answer) - 1, counted=other or answer > 0)
        return abs(answer) - 1

    async def _write_again(self, run_id: str, lost: int, steps: Sequence[Step]) -> None:
        if lost:
            await asyncio.gather(*(self._put_step(step, again=True) for step in steps))
            warnings.warn(written_again(self.location, run_id, lost), DurableNotice, stacklevel=2)

    async def _script(self, script: scripts.Script, run_id: str, *words: Any) -> Any:
        return await run_script(self._link, script, self._keys.both(run_id), *words)

    async def _whole_run(self, run: Run) -> Run:
        return run._replace(result=await self._chunks.get(run.run_id, run.result))

    async def _whole_step(self, step: Step) -> Step:
        return step._replace(payload=await self._chunks.get(step.run_id, step.payload))

    async def _refuse_other_slot(self, run_id: str, new_id: str) -> None:
        if await self.get_run(run_id) is None:
            raise unknown_run(run_id)
        raise StoreError(
            f"it cannot be renamed to {new_id!r} on a Redis cluster, where that may be on another server",
            run_id=run_id,
            remedy=f"Choose an id such as {run_id.partition('~')[0]}~old, or start the run over: fresh=True.",
        )

    def _check_open(self) -> None:
        if self._closed:
            raise self._shut()
        if self._open is None:
            raise StoreUnavailable(f"{self.location!r} is not open yet", remedy="Await setup() first.")

    def _shut(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.location!r} was closed",
            remedy=("Open it again: ", OpenRun(), ", or open_journal(url)."),
        )


def _seconds(ttl: int | str | None) -> int | None:
    try:
        seconds = None if ttl is None else int(ttl)
    except ValueError:
        seconds = 0
    if seconds is not None and seconds < 1:
        raise InvalidOption(f"ttl={ttl!r} makes no sense", remedy="Give seconds, 1 or more, or None.")
    return seconds
