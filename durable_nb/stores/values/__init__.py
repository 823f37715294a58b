"""Stores of values, as python-durable has them, and the adapter that makes a journal of one."""
