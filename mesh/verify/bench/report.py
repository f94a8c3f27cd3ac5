"""A benchmark's figures as lines of at most 80 columns, in the order and terms of vLLM's `bench serve`. Pure."""

from collections.abc import Mapping

from mesh.verify.bench.figures import BenchFigures, Spread

LABEL = 44  # columns of the names
_CLIENT = (
    ("ttft", "Time to First Token"),
    ("tpot", "Time per Output Token (excl. 1st token)"),
    ("itl", "Inter-token Latency"),
    ("e2el", "End-to-end Latency"),
)
_PHASES = (("queued", "queued"), ("prefill", "engine, to 1st token"), ("decode", "engine, after it"), ("wire", "wire"))
LAG_TOLD_MS = 50.0  # the report names a larger delay of the sending: the client is then the bottleneck


def lines_of(figures: BenchFigures, goals: Mapping[str, float] | None = None) -> list[str]:
    """Return the whole report."""
    f, rates = figures, figures.rates
    rows: list[tuple[str, str]] = [
        ("Successful requests:", f"{f.finished}"),
        ("Failed requests:", _failed(f)),
        ("Benchmark duration (s):", f"{f.duration_s:.2f}"),
        ("Total input tokens:", f"{f.input_tokens}"),
        ("  found in a prefix cache:", f"{f.cached_tokens}"),
        ("Total generated tokens:", f"{f.output_tokens}"),
        ("Request throughput (req/s):", f"{rates['requests']:.2f}"),
    ]
    if f.good is not None:
        wanted = " ".join(f"{name}:{limit:g}" for name, limit in (goals or {}).items())
        rows.append((f"Request goodput (req/s), {wanted}:", f"{rates['good_requests']:.2f}"))
    rows += [
        ("Output token throughput (tok/s):", f"{rates['output_tokens']:.2f}"),
        ("Peak output token throughput (tok/s):", f"{f.peak_tokens_per_s:.2f}"),
        ("Peak concurrent requests:", f"{f.peak_concurrency}"),
        ("Total Token throughput (tok/s):", f"{rates['total_tokens']:.2f}"),
        ("Tokens per message:", f"{f.tokens_per_message:.2f}"),
    ]
    if f.retried:
        rows.append(("Taken over by another worker:", f"{f.retried}"))
    lines = [_title("Serving Benchmark Result", "="), *(f"{name:<{LABEL}}{value}" for name, value in rows)]
    for name, title in _CLIENT:
        if name in f.spreads:
            lines += [_title(title, "-"), *_of_client(name.upper(), f.spreads[name])]
    lines += _table(f)
    lag = f.spreads.get("lag")
    if lag is not None and (late := max(lag.percentiles.values())) > LAG_TOLD_MS:
        lines.append(f"sent up to {late:.0f} ms late: this client is the bottleneck; start several")
    return lines


def _of_client(name: str, spread: Spread) -> list[str]:
    rows = [(f"Mean {name} (ms):", spread.mean), (f"Std {name} (ms):", spread.std)]
    rows += [
        (f"{'Median' if share == 50 else f'P{share}'} {name} (ms):", at) for share, at in spread.percentiles.items()
    ]
    return [f"{label:<{LABEL}}{value:.2f}" for label, value in rows]


def _table(figures: BenchFigures) -> list[str]:
    """Return the table of phases."""
    found = [(label, figures.spreads[name]) for name, label in _PHASES if name in figures.spreads]
    if not found:
        return []
    shares = list(found[0][1].percentiles)
    head = f"{'ms':<{LABEL}}{'mean':>8}" + "".join(f"{f'p{share}':>8}" for share in shares)
    lines = [_title("Where the time went", "-"), head]
    for label, spread in found:
        values = [spread.mean, *(spread.percentiles[share] for share in shares)]
        lines.append(f"{label:<{LABEL}}" + "".join(f"{value:>8.1f}" for value in values))
    return lines


def _failed(figures: BenchFigures) -> str:
    count = figures.requests - figures.finished
    if not count:
        return "0"
    reasons = [f"{number} {name}" for name, number in sorted((figures.errors or figures.ended).items())]
    return f"{count} ({', '.join(reasons)})"


def _title(text: str, rule: str) -> str:
    return f" {text} ".center(60, rule)
