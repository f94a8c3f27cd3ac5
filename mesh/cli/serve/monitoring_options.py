"""Options of long-running commands for logs, probes, metrics and traces.

Imports only click and names, as mesh/cli/options does.
"""

from dataclasses import dataclass

import click

from mesh.cli.options import group, option


@dataclass(frozen=True, slots=True)
class MonitoringOptions:
    """Log, telemetry and trace settings of a process. The defaults enable only the log."""

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
        help="Lowest level that is logged to stderr.",
    ),
    option(
        "--log-format",
        type=click.Choice(["text", "kv", "json"]),
        default="text",
        help="Format of the log: plain text, key=value, or JSON.",
    ),
    option(
        "--telemetry-port",
        type=click.IntRange(0, 65535),
        metavar="N",
        show_default="none",
        help="Answer /livez, /readyz and /metrics on this port, without authentication; 0: any free one, logged.",
    ),
    option(
        "--telemetry-host", default="127.0.0.1", metavar="ADDRESS", help="Address that --telemetry-port listens on."
    ),
    option(
        "--otlp",
        metavar="URL",
        show_default="OTEL_EXPORTER_OTLP_ENDPOINT, else none",
        help="Send traces to this OpenTelemetry collector, such as http://127.0.0.1:4318.",
    ),
)
