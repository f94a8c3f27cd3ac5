"""A failed job is tried again, within bounds."""

import pytest

from mesh.errors import ConfigError
from mesh.policies.retry import RetryPolicy
from mesh.protocol.history import Trial


def died(*numbers: int, isolated: bool = False) -> list[Trial]:
    return [Trial(number, isolated) for number in numbers]


def failed(*numbers: int) -> list[Trial]:
    return [Trial(number, False, "failed") for number in numbers]


def test_three_failures_in_a_row_are_enough() -> None:
    assert [RetryPolicy().is_exhausted(failed(*range(n))) for n in range(5)] == [False, False, False, True, True]


def test_however_often_its_worker_died_in_company_a_job_is_not_given_up() -> None:
    assert not RetryPolicy().is_exhausted(died(*range(100)))


def test_a_job_that_lost_two_workers_runs_alone_until_it_gets_further() -> None:
    policy = RetryPolicy()
    assert [policy.is_suspect(died(*range(n))) for n in range(4)] == [False, False, True, True]
    assert policy.is_suspect(died(1, 2) + died(3, isolated=True))
    assert not policy.is_suspect(failed(1, 2, 3))


def test_two_deaths_alone_convict_a_suspect() -> None:
    policy, suspect = RetryPolicy(), died(1, 2)
    assert not policy.is_exhausted(suspect + died(3, isolated=True))
    assert policy.is_exhausted(suspect + died(3, 4, isolated=True))


def test_what_convicts_a_job_must_be_proven_where_its_worker_left_no_word() -> None:
    policy, told = RetryPolicy(), [Trial(4, True, is_noted=True)]
    assert policy.unproven(died(1, 2) + died(3, 4, isolated=True)) == died(3, 4, isolated=True)
    assert policy.unproven(died(1, 2) + died(3, isolated=True) + told) == died(3, isolated=True)
    assert policy.unproven(died(1, 2) + died(3, isolated=True)) == [], "it is not given up yet"
    assert policy.unproven(failed(1, 2, 3)) == []


def test_failures_and_deaths_add_up() -> None:
    assert RetryPolicy().is_exhausted(died(1) + failed(2, 3))
    assert not RetryPolicy().is_exhausted(died(1) + failed(2))


def test_each_wait_is_longer_up_to_a_bound() -> None:
    policy = RetryPolicy(backoff_s=0.2, backoff_factor=2.0, max_backoff_s=1.0)
    assert [policy.delay_s(n) for n in range(6)] == [0.2, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_the_wait_after_very_many_attempts_is_the_bound() -> None:
    assert RetryPolicy().delay_s(500) == RetryPolicy().max_backoff_s


def test_one_attempt_is_the_least() -> None:
    assert RetryPolicy(max_attempts=1).is_exhausted(failed(1))
    with pytest.raises(ConfigError, match="max_attempts = 0") as refused:
        RetryPolicy(max_attempts=0)
    assert refused.value.key == "max-attempts"
