"""An engine or a job without progress is detected."""

import pytest

from mesh.errors import ConfigError
from mesh.policies.progress import JOB_SHARE, ProgressPolicy

POLICY = ProgressPolicy(stall_s=10.0)


def test_an_engine_without_jobs_does_not_hang() -> None:
    assert not POLICY.engine_hangs({}, 1e9)


def test_one_job_that_gets_further_speaks_for_the_engine() -> None:
    assert POLICY.engine_hangs({"a": 0.0, "b": 1.0}, 11.1)
    assert not POLICY.engine_hangs({"a": 0.0, "b": 1.0}, 10.9)


def test_a_job_is_given_longer_than_the_engine() -> None:
    running = {"a": 0.0, "b": 19.0}
    assert POLICY.stalled(running, 10.0 * JOB_SHARE - 0.1) == []
    assert POLICY.stalled(running, 10.0 * JOB_SHARE + 0.1) == ["a"]


def test_a_short_limit_is_looked_at_often_and_a_long_one_every_few_seconds() -> None:
    assert ProgressPolicy(0.8).look_s == pytest.approx(0.1)
    assert ProgressPolicy(1000.0).look_s == 5.0


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="stall_timeout"):
        ProgressPolicy(0.0)
