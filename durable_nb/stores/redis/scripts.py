"""What Redis does in one go: the Lua scripts, each of which may be sent again without harm.

A run is one hash. ``epoch`` is the fence, and outlives the run under its id; a server that has lost it
counts anew, so that a write also names the ``opening`` that it belongs to. ``written`` counts the steps
that were written since. ``made`` is there while there is a run; ``opened``, ``standing``, ``passes``,
``session`` and ``result`` say how it stands. Its steps are the fields ``s:<id>``, its signals ``g:<name>``,
its requests for them ``q:<name>``. A value's first line can be changed here, its second one has the columns
as JSON, the rest is the payload. Beside the hash, ``:chunks`` keeps what is too large for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "ASK",
    "FINISH",
    "OPEN",
    "PROGRESS",
    "PUT_SIGNAL",
    "PUT_STEP",
    "RENAME",
    "REPLACE",
    "RESET",
    "SET_ASIDE",
    "STRIKE",
    "UNANSWERED",
    "Script",
]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the digest by which a server knows it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis names scripts by SHA-1; nothing is kept safe by it.
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


_FENCE = """
local made, epoch, opening = unpack(redis.call('HMGET', KEYS[1], 'made', 'epoch', 'opening'))
if not made or epoch ~= ARGV[1] or (ARGV[2] ~= '' and opening ~= ARGV[2]) then return 0 end
"""

_CHUNKS_TOO = """
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[2], left) end
"""

_DROP_CHUNKS = """
local function chunks(value)
    local columns = value and string.match(value, '^[^\\n]*\\n([^\\n]*)') or ''
    return string.match(columns, '"chunks/(%x+)/(%d+)"')
end
local function replace(field, value)
    local old, count = chunks(redis.call('HGET', KEYS[1], field))
    if old and old ~= chunks(value) then
        for number = 0, count - 1 do redis.call('HDEL', KEYS[2], old .. '/' .. number) end
    end
    if value == '' then redis.call('HDEL', KEYS[1], field) else redis.call('HSET', KEYS[1], field, value) end
end
"""

OPEN: Final = Script(
    _DROP_CHUNKS
    + """
local present = redis.call('HEXISTS', KEYS[1], 'made') == 1 and redis.call('HGET', KEYS[1], 'epoch') or '0'
if redis.call('HGET', KEYS[1], 'opening') == ARGV[1] then return tonumber(present) end
if ARGV[2] ~= '' and ARGV[2] ~= present then return 0 end
redis.call('HSETNX', KEYS[1], 'made', ARGV[3])
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HINCRBY', KEYS[1], 'passes', 1)
redis.call('HSET', KEYS[1], 'opening', ARGV[1], 'opened', ARGV[4], 'standing', ARGV[5], 'session', ARGV[6],
    'written', 0)
replace('result', '')
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[2])
return epoch
"""
)
"""Opens the run KEYS[1]. ARGV: opening's own id, the epoch that it must have or nothing, made, opened,
standing, session. Gives its epoch, or 0 where that is not the one that it must have."""

PUT_STEP: Final = Script(
    _FENCE
    + _DROP_CHUNKS
    + """
if redis.call('HGET', KEYS[1], ARGV[3]) == ARGV[4] then
    return -1 - tonumber(redis.call('HGET', KEYS[1], 'written') or 0)
end
replace(ARGV[3], ARGV[4])
"""
    + _CHUNKS_TOO
    + """
return 1 + redis.call('HINCRBY', KEYS[1], 'written', 1)
"""
)
"""Writes a field of the run KEYS[1], with chunks in KEYS[2]. ARGV: epoch, opening or nothing, field, value.
Gives one more than how many were written since the opening, below 0 where the value was there; or 0."""

FINISH: Final = Script(
    _FENCE
    + _DROP_CHUNKS
    + """
redis.call('HSET', KEYS[1], 'standing', ARGV[3])
replace('result', ARGV[4])
if ARGV[5] ~= '0' then
    redis.call('EXPIRE', KEYS[1], ARGV[5])
    redis.call('EXPIRE', KEYS[2], ARGV[5])
end
return 1 + tonumber(redis.call('HGET', KEYS[1], 'written') or 0)
"""
)
"""Says how a run stands. ARGV: epoch, opening or nothing, standing, result or nothing, seconds until it is
forgotten or 0. Gives one more than how many steps were written since the opening; or 0."""

RESET: Final = Script(
    _FENCE
    + """
local found = 1
for number = 4, #ARGV do
    local value = redis.call('HGET', KEYS[1], ARGV[number])
    if value then
        found = found + 1
        redis.call('HSET', KEYS[1], ARGV[number], ARGV[3] .. string.sub(value, string.find(value, '\\n'), -1))
    end
end
return found
"""
)
"""Gives steps another first line. ARGV: epoch, opening or nothing, line, fields. Gives one more than how many
there were; or 0."""

PROGRESS: Final = Script("""
local found, all = {0}, redis.call('HGETALL', KEYS[1])
for number = 1, #all, 2 do
    if string.sub(all[number], 1, 2) == 's:' then
        local status, kind = string.match(all[number + 1], '^(%l+)\\n%["(%l+)"')
        if status == 'done' then found[1] = found[1] + 1 end
        if status == 'started' and kind == 'signal' then table.insert(found, all[number]) end
    end
end
return found
""")
"""Gives how many steps of a run are done, and the fields of the signals that were asked for."""

PUT_SIGNAL: Final = Script(
    """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then
    redis.pcall('PUBLISH', ARGV[4], '')
"""
    + _CHUNKS_TOO
    + """
    return 1
end
local there = redis.call('HGET', KEYS[1], ARGV[1])
return string.sub(there, 1, #ARGV[3] + 1) == ARGV[3] .. '\\n' and 1 or 0
"""
)
"""Delivers a signal. ARGV: field, value, the delivery's own id, which is the value's first line, channel. Who
may not publish delivers all the same: whoever waits looks now and then."""

SET_ASIDE: Final = Script("""
local value = redis.call('HGET', KEYS[1], ARGV[1])
local columns = value and string.match(value, '^[^\\n]*\\n([^\\n]*)') or ''
if string.sub(columns, 1, #ARGV[3]) ~= ARGV[3] then return 0 end
if redis.call('HSETNX', KEYS[1], ARGV[2], value) == 1 then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
""")
"""Keeps a signal under another field. ARGV: field, other field, what the signal's columns begin with."""

ASK: Final = Script("""
local there = redis.call('HGET', KEYS[1], ARGV[1])
local since = there and string.match(there, '^[^\\n]*') or ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], since .. '\\n' .. ARGV[3])
return since .. '\\n' .. ARGV[3]
""")
"""Records a request. ARGV: field, since when if it is new, its columns. Gives the value as it is now."""

UNANSWERED: Final = Script("""
local found = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 2) == 'q:' then
        if redis.call('HEXISTS', KEYS[1], 'g:' .. string.sub(field, 3)) == 0 then
            table.insert(found, field)
            table.insert(found, redis.call('HGET', KEYS[1], field))
        end
    end
end
return found
""")
"""Gives the requests of a run, each a field and its value, under whose names nothing was delivered."""

REPLACE: Final = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[3] then return 1 end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")
"""Writes another value over one that has not changed meanwhile. ARGV: field, value there, new value."""

STRIKE: Final = Script("""
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) < tonumber(ARGV[2]) then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
""")
"""Takes a member off the sorted set KEYS[1] if it is old. ARGV: member, the lowest score that stays."""

RENAME: Final = Script("""
if redis.call('HGET', KEYS[3], 'renaming') == ARGV[1] then return 'done' end
if redis.call('HEXISTS', KEYS[1], 'made') == 0 then return 'missing' end
if redis.call('HEXISTS', KEYS[3], 'made') == 1 then return 'taken' end
local waiting = redis.call('HGETALL', KEYS[3])
local moving = {}
for number = 1, #waiting, 2 do
    local kind = string.sub(waiting[number], 1, 2)
    if kind == 'g:' or kind == 'q:' then
        if redis.call('HEXISTS', KEYS[1], waiting[number]) == 1 then return 'taken' end
        table.insert(moving, number)
    end
end
for _, number in ipairs(moving) do
    redis.call('HSET', KEYS[1], waiting[number], waiting[number + 1])
end
local pieces = redis.call('HGETALL', KEYS[4])
for number = 1, #pieces, 2 do redis.call('HSET', KEYS[2], pieces[number], pieces[number + 1]) end
local epoch = redis.call('HGET', KEYS[1], 'epoch')
redis.call('RENAME', KEYS[1], KEYS[3])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[4]) end
redis.call('HSET', KEYS[3], 'renaming', ARGV[1])
redis.call('HDEL', KEYS[3], 'session')
redis.call('HSET', KEYS[1], 'epoch', epoch)
return 'done'
""")
"""Renames the run KEYS[1] with chunks KEYS[2] to KEYS[3] and KEYS[4]; the old id keeps its epoch. ARGV: the
renaming's own id."""
