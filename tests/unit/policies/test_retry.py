"""Whether a job that failed is tried again, and when."""

import pytest

from mesh.errors import ConfigError
from mesh.policies.retry import RetryPolicy


def test_three_fruitless_attempts_in_a_row_are_enough():
    assert [RetryPolicy().is_exhausted(n) for n in range(5)] == [False, False, False, True, True]


def test_each_wait_is_longer_up_to_a_bound():
    policy = RetryPolicy(backoff_s=0.2, backoff_factor=2.0, max_backoff_s=1.0)
    assert [policy.delay_s(n) for n in range(6)] == [0.2, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_the_wait_after_very_many_attempts_is_the_bound():
    assert RetryPolicy().delay_s(500) == RetryPolicy().max_backoff_s


def test_one_attempt_is_the_least():
    assert RetryPolicy(max_attempts=1).is_exhausted(1)
    with pytest.raises(ConfigError, match="max_attempts = 0") as refused:
        RetryPolicy(max_attempts=0)
    assert refused.value.key == "max-attempts"
