"""The three backoffs, as the ancestor's README promises them."""

import random

from durable_nb import constant, exponential, linear


def first(strategy, count=5):
    return [strategy(attempt) for attempt in range(count)]


def test_exponential_starts_at_its_base_and_is_capped():
    assert first(exponential()) == [2, 4, 8, 16, 32]
    assert first(exponential(base=3, max=20)) == [3, 9, 20, 20, 20]


def test_exponential_never_overflows():
    assert exponential(base=2.0, max=60)(5000) == 60


def test_linear_adds_its_step():
    assert first(linear(start=2, step=3)) == [2, 5, 8, 11, 14]


def test_constant_is_constant():
    assert first(constant(5)) == [5, 5, 5, 5, 5]


def test_jitter_varies_a_wait_within_its_share_and_keeps_off_the_users_random_stream():
    random.seed(1)
    expected = random.random()
    random.seed(1)
    waits = first(constant(10, jitter=0.5), 50) + first(linear(10, 0, jitter=0.5), 50)
    assert random.random() == expected
    assert all(5 <= wait <= 15 for wait in waits)
    assert len(set(waits)) == 100
    assert max(first(exponential(2, 60, jitter=1), 50)) <= 60
