"""The Lua scripts that Redis executes atomically; each may be sent again without harm.

A run is one hash. ``epoch`` is the fence; it remains after the run was renamed. A server that has lost it
counts from the start, so that each write also names the ``opening`` it belongs to. ``written`` counts the
step writes since that opening. The field ``made`` exists while the run does; ``opened``, ``standing``,
``passes``, ``session``, ``crashes`` and ``result`` hold its state, ``given`` its arguments. Steps are the
fields ``s:<id>``, their earlier results ``v:<attempt>:<id>``, signals ``g:<name>``, requests for signals
``q:<name>``, unread messages ``m:<number>:<topic>``; ``n:<topic>`` is the number of the last one,
``f:<topic>`` not above that of the first unread one, and ``d:<delivery>`` exists once a delivery was made.
The first line of a value may be changed by a script, the second line has the columns as JSON, with the
checksum at its end, the rest is the payload. The hash ``:chunks`` holds values too large for the first one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "DROP_VERSIONS",
    "FINISH",
    "FORGET",
    "OPEN",
    "PROGRESS",
    "PUT_MESSAGE",
    "PUT_SIGNAL",
    "PUT_STEP",
    "RECEIVE",
    "REMOVE_OLD",
    "RENAME",
    "REPLACE",
    "REQUEST_SIGNAL",
    "RESET",
    "SET_ASIDE",
    "UNANSWERED",
    "UNREAD",
    "Script",
]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the digest by which a server identifies it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis identifies scripts by SHA-1; security does not depend on it.
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


_FENCE = """
local made, epoch, opening = unpack(redis.call('HMGET', KEYS[1], 'made', 'epoch', 'opening'))
if not made or epoch ~= ARGV[1] or (ARGV[2] ~= '' and opening ~= ARGV[2]) then return 0 end
"""

_EXPIRE_CHUNKS = """
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[2], left) end
"""

_LIFETIME = """
local was_there = redis.call('EXISTS', KEYS[1]) == 1
local function set_lifetime(ttl)
    local left = redis.call('PTTL', KEYS[1])
    if redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then
        if left > 0 then redis.call('PEXPIRE', KEYS[2], left) end
    elseif ttl == '' then
        redis.call('PERSIST', KEYS[1])
        redis.call('PERSIST', KEYS[2])
    elseif not was_there or left > 0 then
        left = math.max(left, tonumber(ttl))
        redis.call('PEXPIRE', KEYS[1], left)
        redis.call('PEXPIRE', KEYS[2], left)
    end
end
"""
# What waits for a run that does not exist is deleted together: with a lifetime only if all of it has one.

_CHANGED = """
local function changed(value, change)
    local first, last = string.match(value, '^[^\\n]*\\n[^\\n]*, ()%d+()%]\\n')
    if not first then first, last = string.match(value, '^%[[^\\n]*, ()%d+()%]$') end
    if not first then return value end
    local sum = bit.bxor(tonumber(string.sub(value, first, last - 1)), tonumber(change)) % 4294967296
    return string.sub(value, 1, first - 1) .. string.format('%.0f', sum) .. string.sub(value, last)
end
"""
# Changes the checksum of a value by exclusive or: it stands at the end of the JSON line.

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

_KEEP_VERSION = """
local function attempt(value)
    return tonumber(value and string.match(value, '^%l+\\n%["%l+", (%d+)') or 0)
end
local function kept(field, value)
    local known = redis.call('HGET', KEYS[1], field)
    if attempt(known) == 0 or attempt(known) >= attempt(value) then return false end
    local decoded, columns = pcall(cjson.decode, string.match(known, '^[^\\n]*\\n([^\\n]*)'))
    if not decoded or columns[15] == cjson.null then return false end
    redis.call('HSET', KEYS[1], 'v:' .. attempt(known) .. ':' .. string.sub(field, 3), known)
    redis.call('HSET', KEYS[1], field, value)
    return true
end
"""
# Keeps the result of an earlier attempt, with its chunks, beside the value that takes its field.

FORGET: Final = Script(
    _DROP_CHUNKS
    + """
local made, epoch = unpack(redis.call('HMGET', KEYS[1], 'made', 'epoch'))
if not made or epoch ~= ARGV[1] then return 0 end
if #ARGV == 2 then redis.call('DEL', KEYS[1], KEYS[2]) return 1 end
for number = 3, #ARGV do replace(ARGV[number], '') end
if ARGV[2] ~= '' then
    redis.call('HSET', KEYS[1], 'standing', ARGV[2])
    replace('result', '')
end
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
return 1
"""
)
"""Deletes a run, or fields of it with their chunks, unless it was opened since; fences its owner."""

OPEN: Final = Script(
    _DROP_CHUNKS
    + """
local present = redis.call('HEXISTS', KEYS[1], 'made') == 1 and redis.call('HGET', KEYS[1], 'epoch') or '0'
if redis.call('HGET', KEYS[1], 'opening') == ARGV[1] then return tonumber(present) end
if ARGV[2] ~= '' and ARGV[2] ~= present then return 0 end
if redis.call('HSETNX', KEYS[1], 'made', ARGV[3]) == 1 and ARGV[7] ~= '' then
    redis.call('HSET', KEYS[1], 'given', ARGV[7])
end
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
"""Opens the run KEYS[1]. ARGV: id of the opening, expected epoch or empty, made, opened, standing, session,
the arguments of a new run or empty. Returns the new epoch, or 0 if the present epoch is not the expected
one."""

_PUT = (
    _DROP_CHUNKS
    + _KEEP_VERSION
    + "local function put()\n"
    + _FENCE
    + """
if redis.call('HGET', KEYS[1], ARGV[3]) == ARGV[4] then
    return -1 - (tonumber(redis.call('HGET', KEYS[1], 'written') or 0) or 0)
end
if not kept(ARGV[3], ARGV[4]) then replace(ARGV[3], ARGV[4]) end
"""
    + _EXPIRE_CHUNKS
    + """
return 1 + redis.call('HINCRBY', KEYS[1], 'written', 1)
end
"""
)

PUT_STEP: Final = Script(_PUT + "return put()")
"""Writes a field of the run KEYS[1], with chunks in KEYS[2]. ARGV: epoch, opening or empty, field, value.
Returns 1 + the number of writes since the opening, negative if the value was there; 0 if fenced off."""

FINISH: Final = Script(
    _FENCE
    + _DROP_CHUNKS
    + """
redis.call('HSET', KEYS[1], 'standing', ARGV[3], 'crashes', ARGV[6])
replace('result', ARGV[4])
if ARGV[5] ~= '0' then
    redis.call('EXPIRE', KEYS[1], ARGV[5])
    redis.call('EXPIRE', KEYS[2], ARGV[5])
end
return 1 + (tonumber(redis.call('HGET', KEYS[1], 'written') or 0) or 0)
"""
)
"""Records the status of a run. ARGV: epoch, opening or empty, standing, result or empty, seconds until it
expires or 0, crashes. Returns 1 + the number of writes since the opening; 0 if fenced off."""

RESET: Final = Script(
    _FENCE
    + """
local found = 1
for number = 4, #ARGV do
    local value = redis.call('HGET', KEYS[1], ARGV[number])
    if value then
        found = found + 1
        local rest = string.sub(value, string.find(value, '\\n') or #value + 1)
        redis.call('HSET', KEYS[1], ARGV[number], ARGV[3] .. rest)
    end
end
return found
"""
)
"""Changes the first line of steps. ARGV: epoch, opening or empty, line, fields. Returns 1 + the number of
steps that exist; 0 if fenced off."""

PROGRESS: Final = Script("""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return {0} end
local found, all, now = {0}, redis.call('HGETALL', KEYS[1]), tonumber(redis.call('TIME')[1])
for number = 1, #all, 2 do
    if string.sub(all[number], 1, 2) == 's:' then
        local status, columns, kind = string.match(all[number + 1], '^(%l+)\\n(%["(%l+)"[^\\n]*)')
        if status == 'done' then found[1] = found[1] + 1 end
        local decoded, line = pcall(cjson.decode, kind == 'sleep' and columns or '[]')
        local asleep = decoded and tonumber(line[12]) or 0
        local awaited = status == 'started' and (kind == 'signal' or kind == 'message')
        if awaited or asleep > now then table.insert(found, all[number]) end
    end
end
return found
""")
"""Returns the number of finished steps of a run, and the fields of those it waits for."""

PUT_SIGNAL: Final = Script(
    _LIFETIME
    + """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then
    redis.pcall('PUBLISH', ARGV[4], '')
    set_lifetime(ARGV[5])
    return 1
end
local there = redis.call('HGET', KEYS[1], ARGV[1])
return string.sub(there, 1, #ARGV[3] + 1) == ARGV[3] .. '\\n' and 1 or 0
"""
)
"""Delivers a signal, and returns 1 if it is the first of its name. ARGV: field, value, id of the delivery,
which is the value's first line, channel, lifetime in milliseconds or empty. Without permission to publish it
still delivers: waits poll too."""

PUT_MESSAGE: Final = Script(
    _LIFETIME
    + _CHANGED
    + """
local delivery = 'd:' .. ARGV[3]
if redis.call('HEXISTS', KEYS[1], delivery) == 1 then return 0 end
local number
repeat
    number = redis.call('HINCRBY', KEYS[1], 'n:' .. ARGV[1], 1)
    local value = changed(ARGV[2], number)
until redis.call('HSETNX', KEYS[1], 'm:' .. number .. ':' .. ARGV[1], value) == 1
redis.call('HSET', KEYS[1], delivery, number)
redis.pcall('PUBLISH', ARGV[4], '')
set_lifetime(ARGV[5])
return 1
"""
)
"""Appends a message, and returns 1 unless its delivery was made before. ARGV: topic, value, id of the
delivery, channel, lifetime in milliseconds or empty."""

UNREAD: Final = Script("""
local last = tonumber(redis.call('HGET', KEYS[1], 'n:' .. ARGV[1]) or 0) or 0
local known = tonumber(redis.call('HGET', KEYS[1], 'f:' .. ARGV[1]) or 1) or 1
local found, first = {}, last + 1
for number = known, last do
    local value = redis.call('HGET', KEYS[1], 'm:' .. number .. ':' .. ARGV[1])
    if value then
        first = math.min(first, number)
        table.insert(found, number)
        table.insert(found, value)
        if #found >= 2 * tonumber(ARGV[2]) then break end
    end
end
if first > known then redis.call('HSET', KEYS[1], 'f:' .. ARGV[1], first) end
return found
""")
"""Returns the first unread messages of a topic, each as its number and its value. ARGV: topic, how many."""

RECEIVE: Final = Script(
    _PUT
    + """
local written = put()
if written ~= 0 then replace(ARGV[5], '') end
return written
"""
)
"""Writes a step as ``PUT_STEP`` does, and deletes the message that it has received. ARGV: those of
``PUT_STEP``, the message's field."""

SET_ASIDE: Final = Script(
    _CHANGED
    + """
local value = redis.call('HGET', KEYS[1], ARGV[1])
local columns = value and string.match(value, '^[^\\n]*\\n([^\\n]*)') or ''
if string.sub(columns, 1, #ARGV[3]) ~= ARGV[3] then return 0 end
if redis.call('HSETNX', KEYS[1], ARGV[2], changed(value, ARGV[4])) == 1 then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
"""
)
"""Moves a signal to another field. ARGV: field, other field, the beginning of the signal's columns, what the
other name changes in its checksum."""

REQUEST_SIGNAL: Final = Script(
    _PUT
    + """
local written = ARGV[3] == '' and 1 or put()
if written == 0 then return {0} end
local there = redis.call('HGET', KEYS[1], ARGV[5])
local value = (there and string.match(there, '^[^\\n]*') or ARGV[6]) .. '\\n' .. ARGV[7]
redis.call('HSET', KEYS[1], ARGV[5], value)
return {written, value}
"""
)
"""Writes a step as ``PUT_STEP`` does, unless its field is empty, and records a request for a signal. ARGV:
those of ``PUT_STEP``, the request's field, its time if it is new, its columns. Returns what ``PUT_STEP``
does, and the request's value."""

UNANSWERED: Final = Script("""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return {} end
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
"""Returns the requests of a run for signals not yet delivered, each as a field and its value."""

REPLACE: Final = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[3] then return 1 end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")
"""Replaces a value if it has not changed. ARGV: field, expected value, new value."""

REMOVE_OLD: Final = Script("""
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) < tonumber(ARGV[2]) then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
""")
"""Removes a member from the sorted set KEYS[1] if its score is low. ARGV: member, lowest score that stays."""

DROP_VERSIONS: Final = Script(
    _DROP_CHUNKS
    + """
local found = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 2) == 'v:' then
        replace(field, '')
        found = found + 1
    end
end
return found
"""
)
"""Deletes the earlier results of the steps of a run; returns how many there were."""

RENAME: Final = Script(
    _CHANGED
    + """
if redis.call('HGET', KEYS[3], 'renaming') == ARGV[1] then return 'done' end
if redis.call('HEXISTS', KEYS[1], 'made') == 0 then return 'missing' end
if redis.call('HEXISTS', KEYS[3], 'made') == 1 then return 'taken' end
local waiting, own = redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[1])
local moving = {}
local moved = {['g:'] = true, ['q:'] = true, ['m:'] = true, ['n:'] = true, ['f:'] = true, ['d:'] = true}
for number = 1, #waiting, 2 do
    local kind = string.sub(waiting[number], 1, 2)
    if moved[kind] then
        if redis.call('HEXISTS', KEYS[1], waiting[number]) == 1 then return 'taken' end
        table.insert(moving, number)
    end
end
for number = 1, #own, 2 do
    local value = changed(own[number + 1], ARGV[2])
    if value ~= own[number + 1] then redis.call('HSET', KEYS[1], own[number], value) end
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
"""
)
"""Renames the run KEYS[1] with chunks KEYS[2] to KEYS[3] and KEYS[4]; the old id keeps its epoch. ARGV: id of
the renaming, what the new id changes in the checksums."""
