"""The options by which a command that runs for long is watched: its log, its port for probes and scrapers, its traces.

Imports nothing but click and names, as mesh/cli/options does.
"""

from dataclasses import dataclass

import click

from mesh.cli.options import group, option


@dataclass(frozen=True, slots=True)
class MonitoringOptions:
    """How a process is watched. The defaults watch nothing but its log."""

    log_level: str = "info"
    log_format: str = "text"
    telemetry_port: int | None = None
    telemetry_host: str = "127.0.0.1"
    otlp: str | None = None


with_watching = group(
    MonitoringOptions,
    "watching",
    option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="How much is logged to stderr.",
    ),
    option(
        "--log-format",
        type=click.Choice(["text", "kv", "json"]),
        default="text",
        help="Lines for people, key=value, or JSON.",
    ),
    option(
        "--telemetry-port",
        type=click.IntRange(0, 65535),
        metavar="N",
        show_default="none",
        help="Answer /livez, /readyz and /metrics there, to anyone who reaches it; 0: any free one, see the log.",
    ),
    option("--telemetry-host", default="127.0.0.1", metavar="ADDRESS", help="Where that port is opened."),
    option(
        "--otlp",
        metavar="URL",
        show_default="what OTEL_EXPORTER_OTLP_ENDPOINT says, else none",
        help="Send traces to this OpenTelemetry collector, such as http://127.0.0.1:4318.",
    ),
)
