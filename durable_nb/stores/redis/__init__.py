"""Runs on a Redis server or cluster."""

from durable_nb.stores.redis.journal import RedisJournal

__all__ = ["RedisJournal"]
