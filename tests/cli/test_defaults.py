"""What help says of a default is what happens without the option: each text is compared with the value that acts."""

import inspect
from collections.abc import Iterator
from typing import Any

import click
import pytest

from mesh.broker.topology import MeshSettings
from mesh.broker.topology.streams import RECORD_BYTES, streams
from mesh.cli import main
from mesh.cli.serve import worker_action
from mesh.cli.serve.monitoring_options import MonitoringOptions
from mesh.cli.setup.settings import RECORD_DAYS
from mesh.client.client import Client, connect
from mesh.control.tenants.account_file import AccountLimits
from mesh.engines.vllm.params import sampling_arguments
from mesh.policies.progress import ProgressPolicy
from mesh.policies.retry import RetryPolicy
from mesh.policies.tiers import TierWeights
from mesh.protocol.messages import DEFAULT_DEADLINE_MS, DEFAULT_RESULT_TTL_MS, Request
from mesh.protocol.subjects import Names
from mesh.verify.bench.plan import WorkloadShape
from mesh.verify.soak.run import ACK_WAIT_S, CLUSTER_ACK_WAIT_S, SoakSettings
from mesh.worker.options import WorkerOptions

MESH, WORKER, REQUEST = MeshSettings(), WorkerOptions(model="m"), Request(prompt="p")
SOAK = {name: field.default for name, field in SoakSettings.__dataclass_fields__.items()}
SHAPE = {name: field.default for name, field in WorkloadShape.__dataclass_fields__.items()}
NOTHING = object()  # the option hands on nothing, which means what its text says

# The value that acts where the option is not given; "command option" where an option of that name means another thing.
EFFECTIVE: dict[str, Any] = {
    "lanes": MESH.lanes,
    "replicas": MESH.replicas,
    "storage": MESH.storage,
    "events-storage": MESH.events_storage,
    "ack-wait": MESH.ack_wait_s,
    "max-deliver": MESH.max_deliver,
    "queue-limit": MESH.queue_limit,
    "audit": MESH.audit,
    "record-requests": bool(MESH.record_days),
    "record-days": RECORD_DAYS,
    "record-bytes": RECORD_BYTES,
    "max-tokens": sampling_arguments(REQUEST, seed=1)["max_tokens"],
    "temperature": sampling_arguments(REQUEST, seed=1)["temperature"],
    "top-p": REQUEST.top_p,
    "deadline": DEFAULT_DEADLINE_MS / 1000,
    "tier": inspect.signature(Client.submit).parameters["tier"].default,
    "tenant": inspect.signature(connect).parameters["tenant"].default,
    "namespace": Names().ns,
    "max-attempts": RetryPolicy().max_attempts,
    "stall-timeout": ProgressPolicy().stall_s,
    "coalesce-ms": WORKER.window_s * 1000,
    "grace": WORKER.grace_s,
    "frontdoor": WORKER.has_frontdoor,
    "log-level": MonitoringOptions().log_level,
    "log-format": MonitoringOptions().log_format,
    "telemetry-port": MonitoringOptions().telemetry_port,
    "telemetry-host": MonitoringOptions().telemetry_host,
    "tenant add connections": AccountLimits().connections,
    "tenant add subscriptions": AccountLimits().subscriptions,
    "soak requests": SOAK["requests"],
    "soak seed": SOAK["seed"],
    "soak workers": SOAK["workers"],
    "soak replicas": SOAK["servers"],
    "bench burstiness": SHAPE["burstiness"],
    "bench temperature": SHAPE["temperature"],
    "soak ack-wait": f"{ACK_WAIT_S:g}, with --replicas 3 {CLUSTER_ACK_WAIT_S:g}",
}
WORDS = {"on": True, "off": False, "none": None, "1 GiB": 1 << 30}
# Texts for an option that hands on nothing: the command then does what the text says.
SENTENCES = {
    "the system's trust store",
    "derived from --model; demo for the demo model",
    "the model's own",
    "the engine's own limit",
    "derived from the job's id",
    "random",
    "the request's own",
    "OTEL_EXPORTER_OTLP_ENDPOINT, else none",
    "until `mesh resume`",
    "the demo model that comes with mesh",
    "w- and eight random digits",
    "a temporary folder, removed at the end",
    "NAME.nk in this folder",
    "all at once",
    "all",
    "all models",
    "all tenants",
    "any",
    "now",
    "--nats",
    "--namespace",
    "the recorded one",
}


def walk(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from walk(found, f"{name} {each}".strip())
    else:
        yield name, command


def shown() -> Iterator[tuple[str, str, click.Option, str]]:
    """Command, option, and the default that its help shows."""
    for name, command in walk(main.cli):
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                text = option.get_help_extra(click.Context(command)).get("default")
                if text is not None:
                    long = next(each for each in option.opts if each.startswith("--"))[2:]
                    yield name, long, option, text.removeprefix("(").removesuffix(")")


ALL = list(shown())
# What each command gets where no option is given, by the names of its parameters.
HANDED_ON = {name: command.make_context(name, [], resilient_parsing=True).params for name, command in walk(main.cli)}


def value_of(text: str) -> Any:
    """What the text of a default means."""
    if text in WORDS:
        return WORDS[text]
    try:
        return float(text)
    except ValueError:
        return text


def effective(command: str, option: str) -> Any:
    return EFFECTIVE.get(f"{command} {option}", EFFECTIVE.get(option, NOTHING))


@pytest.mark.parametrize(("command", "name", "option", "text"), ALL, ids=[f"{each[0]} --{each[1]}" for each in ALL])
def test_a_default_in_help_is_the_value_that_acts(command: str, name: str, option: click.Option, text: str) -> None:
    given = HANDED_ON[command][option.name or ""]
    if text in SENTENCES:
        assert given in (None, ()), "the text says that nothing is handed on"
        return
    acts = effective(command, name)
    if isinstance(option.show_default, str):
        assert given is None
        assert acts is not NOTHING, f"{text!r} is written by hand: say in EFFECTIVE which value acts"
        assert value_of(text) == acts
    elif name == "frontdoor":
        assert given == acts
    elif acts is not NOTHING:  # the option's own default; a second place must hold the same
        assert value_of(text) == value_of(str(given)) == (float(acts) if isinstance(acts, int) else acts)


def test_the_hand_written_table_names_no_option_that_is_gone() -> None:
    names = {name for _, name, _, _ in ALL} | {f"{command} {name}" for command, name, _, _ in ALL}
    assert set(EFFECTIVE) - names == set()
    assert {text for *_, text in ALL} >= SENTENCES


def test_a_wrong_default_is_seen() -> None:
    """The text of --max-deliver was 100 where 10,000 acted."""
    (option,) = {id(each[2]): each[2] for each in ALL if each[:2] == ("init", "max-deliver")}.values()
    with pytest.raises(AssertionError):
        test_a_default_in_help_is_the_value_that_acts("init", "max-deliver", option, "100")


def test_the_weights_of_the_tiers_are_those_of_the_worker() -> None:
    weights = TierWeights()
    text = next(each[3] for each in ALL if each[1] == "tier-weights")
    assert text == f"interactive={weights.interactive:g},standard={weights.standard:g},batch={weights.batch:g}"
    assert worker_action.read_weights(text) == weights == WORKER.weights


AGES_S = {each["name"]: each.get("max_age", 0) / 1e9 for _, each in streams(Names(), MESH)}
SPANS_S = {"15 minutes": 900, "an hour": 3600, "7 days": 7 * 86_400, "six seconds": 6}


@pytest.mark.parametrize(
    ("command", "text", "acts_s"),
    [
        ("job", "events 15 minutes", AGES_S[Names().events_stream]),
        ("job", "Result an hour", DEFAULT_RESULT_TTL_MS / 1000),
        ("result", "A Result is kept for an hour", DEFAULT_RESULT_TTL_MS / 1000),
        ("job", "dead letter 7 days", AGES_S[Names().dead_stream]),
        ("init", "Keep an audit log for 7 days", AGES_S[Names().audit_stream]),
        ("workers", "leaves the list after six seconds", AGES_S[f"KV_{Names().workers_bucket}"]),
    ],
)
def test_how_long_things_are_kept_is_what_help_says(command: str, text: str, acts_s: float) -> None:
    found = main.cli.get_command(click.Context(main.cli), command)
    assert found is not None
    assert text in " ".join(found.get_help(click.Context(found, info_name=command)).split())
    assert acts_s == next(value for words, value in SPANS_S.items() if words in text)
