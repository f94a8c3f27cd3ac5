"""A benchmark plans its requests and their times."""

import itertools
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import ConfigError, InvalidRequestError
from mesh.verify.bench.dataset import read_items
from mesh.verify.bench.plan import Item, Length, WorkloadShape, asks, read_goals, read_length, read_shares


def shape(count: int = 50, **more: Any) -> WorkloadShape:
    return WorkloadShape(count=count, input=Length(4, 8), output=Length(10, 20), **more)


@given(st.integers(0, 1000), st.integers(1, 60), st.sampled_from([None, 0.5, 100.0]), st.sampled_from([0.2, 1.0, 5.0]))
def test_the_same_seed_asks_the_same_and_in_the_order_of_time(
    seed: int, count: int, rate: float | None, burstiness: float
) -> None:
    one, two = (list(asks(random.Random(seed), shape(count, rate=rate, burstiness=burstiness))) for _ in range(2))
    assert one == two
    assert len(one) == count
    times = [ask.at_s for ask in one]
    assert times == [None] * count if rate is None else times == sorted(at_s or 0.0 for at_s in times)
    assert all(10 <= ask.fields["max_tokens"] <= 20 for ask in one)
    assert len({ask.fields["prompt"] for ask in one}) == count, "no two alike: a cache must not do the work"


def test_the_rate_is_held_in_the_mean_and_burstiness_changes_only_the_gaps() -> None:
    def gaps(burstiness: float) -> list[float]:
        times = [
            0.0,
            *(ask.at_s or 0.0 for ask in asks(random.Random(1), shape(4000, rate=50.0, burstiness=burstiness))),
        ]
        return [b - a for a, b in itertools.pairwise(times)]

    bursts, even = gaps(0.2), gaps(20.0)
    assert statistics.fmean(bursts) == pytest.approx(1 / 50, rel=0.1)
    assert statistics.fmean(even) == pytest.approx(1 / 50, rel=0.1)
    assert statistics.pstdev(bursts) > 5 * statistics.pstdev(even)


def test_tenants_and_tiers_come_in_their_shares() -> None:
    found = list(asks(random.Random(1), shape(4000, tenants={"a": 1, "b": 3}, tiers={"batch": 1.0})))
    assert sum(ask.tenant == "a" for ask in found) == pytest.approx(1000, rel=0.1)
    assert {ask.tier for ask in found} == {"batch"}


def test_a_trace_decides_what_it_names_and_is_gone_through_again() -> None:
    items = [Item(prompt="Hello", output_tokens=7, at_s=0.0), Item(input_tokens=3, at_s=1.5, tenant="a", tier="batch")]
    found = list(asks(random.Random(1), shape(5), items))
    assert [ask.at_s for ask in found] == [0.0, 1.5, 1.5, 3.0, 3.0]
    assert (found[0].fields["prompt"], found[0].fields["max_tokens"]) == ("Hello", 7)
    assert (found[1].tenant, found[1].tier, len(found[1].fields["prompt"].split())) == ("a", "batch", 3)


def test_lengths_are_read() -> None:
    assert read_length("input-len", "128") == Length(128, 128)
    assert read_length("input-len", "64-256") == Length(64, 256)
    normal = read_length("input-len", "normal:100,20")
    drawn = [normal.draw(random.Random(seed)) for seed in range(500)]
    assert statistics.fmean(drawn) == pytest.approx(100, rel=0.05)
    assert all(normal.low <= each <= normal.high for each in drawn)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-5",
        "8-4",
        "a",
        "1.5",
        "normal:",
        "normal:5",
        "normal:0,1",
        "9999999",
        "1-b",
        "normal:inf,1",
        "normal:1e308,1",
        "normal:10,inf",
        "normal:10,nan",
        "normal:nan,1",
    ],
)
def test_what_is_no_length_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--output-len") as refused:
        read_length("output-len", text)
    assert refused.value.key == "output-len"


def test_shares_and_goals_are_read_or_refused() -> None:
    assert read_shares("tier", "interactive=1, batch=4") == {"interactive": 1.0, "batch": 4.0}
    assert read_shares("tenant", "a") == {"a": 1.0}
    for key, text in [("tenant", "a=x"), ("tenant", "a=0"), ("tenant", "a=nan")]:
        with pytest.raises(ConfigError):
            read_shares(key, text)
    for key, text in [("tier", "gold"), ("tenant", "a.b"), ("tenant", "")]:
        with pytest.raises(InvalidRequestError):
            read_shares(key, text)
    assert read_goals(["ttft:500", "tpot:50 e2el:2000"]) == {"ttft": 500, "tpot": 50, "e2el": 2000}
    for text in ("ttft", "ttft:", "ttft:-1", "itl:5", "ttft:nan"):
        with pytest.raises(ConfigError, match="--goodput"):
            read_goals([text])


def test_a_sharegpt_file_gives_first_questions_and_the_lengths_of_their_answers() -> None:
    body = b"""[{"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "abcdefgh"}]},
                {"conversations": [{"from": "human", "value": "alone"}]}, {"other": 1}]"""
    assert read_items(body, "sg.json") == [Item(prompt="Hi?", output_tokens=2)]


def test_a_trace_is_read_line_by_line() -> None:
    first = b'{"timestamp": 1500, "input_length": 9, "output_length": 4}'
    body = first + b'\n\n{"prompt": "a", "max_tokens": 2, "tier": "batch"}\n'
    assert read_items(body, "t.jsonl") == [
        Item(input_tokens=9, output_tokens=4, at_s=1.5),
        Item(prompt="a", output_tokens=2, tier="batch"),
    ]


def test_a_trace_that_is_out_of_order_is_played_in_the_order_of_its_times() -> None:
    body = b"\n".join(b'{"timestamp": %d, "input_length": %d}' % each for each in ((2000, 1), (1000, 2), (2000, 3)))
    assert [(item.at_s, item.input_tokens) for item in read_items(body, "t")] == [(1.0, 2), (2.0, 1), (2.0, 3)]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "no requests"),
        (b"[]", "no requests"),
        (b"[1]", "no ShareGPT"),
        (b'[{"conversations": {"a": 1}}, {"conversations": 5}]', "no requests"),
        (b'[{"a": ' + b"[" * 100_000, "no ShareGPT"),
        (b"{}\nnot json\n", "line 2"),
        (b'{"input_length": 0}', "line 1"),
        (b'{"input_length": true}', "line 1"),
        (b'{"prompt": 5}', "line 1"),
        (b'{"at_s": -1}', "line 1"),
        (b'{"timestamp": "x"}', "line 1"),
        (b'{"timestamp": 1' + b"0" * 400 + b"}", "line 1"),
        (b'{"a": ' * 100_000, "line 1"),
        (b'{"tier": "gold"}', "tier"),
        (b'{"tenant": "a.b"}', "tenant"),
    ],
)
def test_a_data_set_that_cannot_be_used_says_where(body: bytes, where: str) -> None:
    with pytest.raises((ConfigError, InvalidRequestError), match=where):
        read_items(body, "file")
