"""Samples become figures, and figures become lines."""

import json
from collections.abc import Sequence
from typing import Any

from mesh.verify.bench.figures import Sample, figures_of, is_good, phases
from mesh.verify.bench.report import lines_of


def sample(
    sent_s: float = 0.0, gaps_ms: tuple[float, ...] = (100, 10, 30), counts: Sequence[int] = (1, 2, 2), **more: Any
) -> Sample:
    arrivals, now = [], sent_s
    for gap in gaps_ms:
        now += gap / 1000
        arrivals.append(now)
    values: dict[str, Any] = {
        "done_s": now + 0.005,
        "status": "finished",
        "prompt_tokens": 4,
        "completion_tokens": sum(counts),
        "attempts": 1,
        "queued_ms": 20,
        "first_token_ms": 95,
        "total_ms": 140,
    }
    return Sample("t", "standard", sent_s, sent_s, arrivals, list(counts), **(values | more))


def test_a_request_is_measured_in_vllms_words() -> None:
    one = sample()
    assert one.ttft_ms is not None
    assert one.tpot_ms is not None
    assert round(one.ttft_ms, 6) == 100
    assert round(one.tpot_ms, 6) == 10, "40 ms for the four tokens after the first message's"
    assert round(one.e2el_ms, 6) == 145
    assert Sample("t", "batch", 0, 0).ttft_ms is None
    assert sample(gaps_ms=(50,), counts=(1,)).tpot_ms is None


def test_the_time_is_told_apart_by_where_it_went() -> None:
    found = phases([sample(), sample(queued_ms=None), sample(first_token_ms=None)])
    assert (found["queued"], found["prefill"], found["decode"]) == ([20, 20], [75], [45])
    assert [round(value, 6) for value in found["wire"]] == [5, 5]


def test_a_good_request_meets_every_goal() -> None:
    one = sample()
    assert is_good(one, {"ttft": 101, "tpot": 11, "e2el": 146})
    assert not is_good(one, {"ttft": 99})
    assert not is_good(one, {"ttft": 101, "tpot": 9})
    assert is_good(sample(gaps_ms=(50,), counts=(1,)), {"tpot": 1}), "there is no second token to wait for"
    assert not is_good(Sample("t", "batch", 0, 0, status="finished"), {"ttft": 1000})


def test_the_figures_of_a_run_add_up() -> None:
    samples = [sample(0.0), sample(1.0, attempts=2), sample(1.0, status="failed", code="engine_error")]
    samples.append(Sample("t", "batch", 2.0, 2.25, done_s=2.3, status="refused", code="quota_exceeded"))
    figures = figures_of(samples, {"ttft": 99})
    assert (figures.requests, figures.finished, figures.good, figures.retried) == (4, 2, 0, 1)
    assert figures.ended == {"finished": 2, "failed": 1, "refused": 1}
    assert figures.errors == {"engine_error": 1, "quota_exceeded": 1}
    assert (figures.input_tokens, figures.output_tokens, figures.peak_concurrency) == (8, 10, 2)
    assert figures.tokens_per_message == 10 / 6
    assert round(figures.duration_s, 6) == 2.3
    assert figures.spreads["lag"].max == 250.0
    flat = figures.as_json()
    assert (flat["completed"], flat["failed"], flat["total_output_tokens"]) == (2, 2, 10)
    assert {"mean_ttft_ms", "p50_itl_ms", "p99_e2el_ms", "std_tpot_ms", "mean_wire_ms"} <= set(flat)
    json.dumps(flat)


def test_the_report_fits_a_terminal_and_says_what_is_wrong() -> None:
    samples = [sample(0.0), Sample("t", "batch", 0.0, 1.0, done_s=1.1, status="refused", code="quota_exceeded")]
    lines = lines_of(figures_of(samples, {"ttft": 500}), {"ttft": 500})
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for words in ("Request goodput (req/s), ttft:500:", "Median TTFT (ms):", "P99 ITL (ms):", "1 (1 quota_exceeded)"):
        assert words in text
    assert "sent up to" in text
    assert "this client is the bottleneck" in text


def test_a_run_in_which_nothing_finished_is_reported_too() -> None:
    refused = Sample("t", "batch", 0.0, 0.0, done_s=0.1, status="refused", code="model_not_found")
    assert "Successful requests:                        0" in lines_of(figures_of([refused]))
    assert figures_of([]).rates["requests"] == 0.0
