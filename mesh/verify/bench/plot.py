"""Plots a benchmark: the distribution of its latencies, its throughput, its phases. Needs the extra `plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mesh._version import extra
from mesh.errors import ConfigError
from mesh.verify.bench.figures import Sample, phases

FORMATS = (".svg", ".png")
SIZE_INCHES = (11.0, 7.0)


def check_file(file: Path) -> None:
    """Refuse a file that cannot be drawn, before the run begins.

    Raises:
        ConfigError: the format is unknown, the folder does not exist, or matplotlib is not installed.
    """
    if file.suffix not in FORMATS:
        raise ConfigError(f"--plot {file} must end in {' or '.join(FORMATS)}", key="plot")
    if not file.parent.is_dir():
        raise ConfigError(f"--plot {file}: there is no folder {file.parent}", key="plot")
    _pyplot()


def draw(samples: Sequence[Sample], title: str, file: Path) -> None:
    """Write the plot to `file`, as PNG or SVG.

    Raises:
        ConfigError: as in `check_file`, or the file cannot be written.
    """
    figure, ((ttft, itl), (when, where)) = _pyplot().subplots(2, 2, figsize=SIZE_INCHES)
    done = [each for each in samples if each.status == "finished"]
    _cumulative(ttft, "Time to first token, ms", [each.ttft_ms for each in done if each.ttft_ms is not None])
    gaps = [1000 * (b - a) for each in done for a, b in zip(each.arrivals_s, each.arrivals_s[1:], strict=False)]
    _cumulative(itl, "Inter-token latency, ms", gaps)
    _timeline(when, done)
    _phases(where, done)
    figure.suptitle(title)
    figure.tight_layout()
    try:
        figure.savefig(file)
    except OSError as error:
        raise ConfigError(f"--plot {file} cannot be written: {error.strerror}", key="plot") from None
    finally:
        _pyplot().close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(f"--plot needs matplotlib, which is not installed; run {extra('plot')}", key="plot") from None
    matplotlib.use("Agg")  # draws to a file, without a display
    from matplotlib import pyplot

    return pyplot


def _cumulative(axes: Any, label: str, values: Sequence[float]) -> None:
    """Plot the cumulative distribution."""
    ordered = sorted(values)
    axes.plot(ordered, [(place + 1) / len(ordered) for place in range(len(ordered))])
    axes.set_xlabel(label)
    axes.set_ylabel("share of all")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _timeline(axes: Any, samples: Sequence[Sample]) -> None:
    """Plot the output tokens of each second of the run."""
    began_s = min((each.sent_s for each in samples), default=0.0)
    seconds: dict[int, int] = {}
    for each in samples:
        for arrived_s, count in zip(each.arrivals_s, each.counts, strict=True):
            second = int(arrived_s - began_s)
            seconds[second] = seconds.get(second, 0) + count
    last = max(seconds, default=0)
    axes.step(range(last + 1), [seconds.get(second, 0) for second in range(last + 1)], where="post")
    axes.set_xlabel("seconds since the first request")
    axes.set_ylabel("output tokens/s")
    axes.grid(alpha=0.3)


def _phases(axes: Any, samples: Sequence[Sample]) -> None:
    """Plot the mean phases of a request."""
    found = {name: values for name, values in phases(samples).items() if values}
    axes.barh(list(found), [sum(values) / len(values) for values in found.values()])
    axes.invert_yaxis()
    axes.set_xlabel("mean ms of a request")
    axes.grid(alpha=0.3, axis="x")
