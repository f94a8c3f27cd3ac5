"""The README: its length, its two set-up commands, its picture, and the defaults that it names."""

import re

from mesh.broker.topology import MeshSettings
from mesh.cli.option_values import DEFAULT_NATS
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.policies.retry import RetryPolicy
from mesh.protocol.messages import DEFAULT_DEADLINE_MS, DEFAULT_MAX_TOKENS, DEFAULT_RESULT_TTL_MS
from mesh.worker.worker import WorkerOptions
from tests.docs.pages import ROOT, blocks, text_of

SET_UP = [block.code.strip() for block in blocks("README.md", "sh") if "venv .venv" in block.code]


def test_it_has_at_most_150_lines_and_one_picture() -> None:
    text = text_of("README.md")
    assert text.count("\n") <= 150
    assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", text) == ["docs/images/request.svg"]


def test_each_set_up_command_is_one_line() -> None:
    assert [code for code in SET_UP if "\n" in code] == []
    assert ["mesh up" in code for code in SET_UP] == [True, False, False]
    assert ["mesh demo" in code for code in SET_UP] == [False, True, False]
    assert ["pytest" in code for code in SET_UP] == [False, False, True]


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    assert SET_UP[2] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_promise_has_six_lines() -> None:
    promise = text_of("README.md").split("## What is promised\n")[1].split("\n## ")[0]
    assert re.findall(r"^(\d)\. .+\.$", promise, re.MULTILINE) == list("123456")


def test_the_defaults_are_those_of_the_code() -> None:
    settings, options = MeshSettings(), WorkerOptions(model="demo")
    shown = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", text_of("README.md"), re.MULTILINE))
    expected = {
        "output of one request": f"{DEFAULT_MAX_TOKENS} tokens",
        "deadline of a job": f"{DEFAULT_DEADLINE_MS // 1000} s after it was stored",
        "Result kept": f"{DEFAULT_RESULT_TTL_MS // 1000} s",
        "journal kept": f"{settings.events_age_s:g} s",
        "lease (`ack_wait`)": f"{settings.ack_wait_s:g} s, renewed while a job runs",
        "attempts at one job": f"{RetryPolicy().max_attempts}",
        "queue": f"{settings.queue_limit} jobs per model, tier, tenant and lane",
        "lanes of a model": f"{settings.lanes}",
        "drain of a worker": f"{options.grace_s:g} s",
        "NATS": f"`{DEFAULT_NATS}`",
        "telemetry": f"no port, on {MonitoringOptions().telemetry_host} when asked for",
    }
    assert MonitoringOptions().telemetry_port is None
    assert {key: shown.get(key) for key in expected} == expected
    assert len(shown) == len(expected) + 2  # the table's head and rule
