"""Converts the facts of `mesh doctor` to advice on NATS, and collects all advice. Pure.

control/doctor/examine gathers the facts. control/doctor/checks_mesh checks the mesh, control/doctor/checks_local this
machine.
"""

from collections.abc import Iterator

from mesh.broker.inspect.server_info import AccountFacts, GreetingFacts
from mesh.control.doctor import checks_local, checks_mesh
from mesh.control.doctor.facts import LEVELS, AddressFacts, Advice, ClockFacts, Facts, Level
from mesh.control.status.checks import version_key

NEEDED_SERVER = (2, 12, 0)  # broker/topology refuses older ones
# The first release of each line that fixes permission bypasses and a crash before login.
SAFE_SERVERS = ((2, 12, 12), (2, 14, 3))
NEEDED_STREAMS = 7  # includes the store of large Results, which is created on first use
SMALL_PAYLOAD_BYTES = 256 << 10  # a prompt of some 60,000 tokens
LARGE_PAYLOAD_BYTES = 8 << 20  # NATS advises against larger values
CLOCK_WARNING_MS = 1000.0  # deadlines are instants, so the clocks' difference shifts them
CLOCK_ERROR_MS = 30_000.0


def diagnose(facts: Facts) -> list[Advice]:
    """Returns all advice, the worst first."""
    found = [
        *_of_addresses(facts),
        *_of_connection(facts),
        *(checks_mesh.judge(facts.mesh, facts.namespace, facts.greeting) if facts.mesh else ()),
        *(checks_local.judge_monitor(facts.monitor, facts.mesh) if facts.greeting else ()),
        *checks_local.judge(facts.local, facts.greeting is not None or facts.is_refused),
    ]
    return sorted(found, key=lambda each: LEVELS.index(each.level))


def summary(facts: Facts) -> list[tuple[str, str]]:
    """Returns one line for each thing that was checked: its name and a few words."""
    where = ", ".join(each.url for each in facts.addresses)
    lines = []
    if facts.greeting is None:
        lines.append(("NATS", f"{where}: no connection"))
    else:
        clock = facts.clock
        far = f", {clock.rtt_ms[0]:.1f} ms away, clock {clock.offset_ms:+.1f} ms" if clock else ""
        lines.append(("NATS", f"{where}: nats-server {facts.greeting.version}{far}"))
    if facts.mesh is not None:
        lines.append(("mesh", f"{facts.namespace}: {checks_mesh.in_words(facts.mesh)}"))
    lines.append(("here", checks_local.in_words(facts.local)))
    return lines


def _of_addresses(facts: Facts) -> Iterator[Advice]:
    if facts.greeting is None or facts.greeting.has_tls:
        return  # the server sent no greeting, or an unreadable one
    clear = [each for each in facts.addresses if not (each.is_local or each.asks_for_tls)]
    if not clear:
        return
    where = ", ".join(each.url for each in clear)
    fix = f"give it as {_with_tls(clear[0])}, once nats-server has a `tls {{ … }}` block"
    if facts.login.has_password:
        text = f"the password travels to {where} in clear text, and anyone on the network can read it"
        yield Advice(level="error", code="clear_password", text=text, fix=fix)
    else:
        text = f"prompts and answers travel to {where} in clear text"
        yield Advice(level="warning", code="clear_text", text=text, fix=fix)


def _with_tls(address: AddressFacts) -> str:
    scheme, separator, rest = address.url.partition("://")
    return f"{'wss' if scheme == 'ws' else 'tls'}://{rest if separator else address.url}"


def _of_connection(facts: Facts) -> Iterator[Advice]:
    if facts.is_refused:
        fix = "give --creds, --nkey, or --user and MESH_PASSWORD, as in nats-server's configuration"
        yield Advice(level="error", code="nats_refused", text=facts.unreachable, fix=fix)
    elif facts.is_misconfigured:
        fix = "change the setting it names; `mesh doctor --help` lists all of them"
        yield Advice(level="error", code="nats_setting", text=facts.unreachable, fix=fix)
    elif facts.greeting is None:
        fix = "start one on this machine with `mesh up`, or give the address of yours with --nats"
        text = facts.unreachable or "there is no connection to NATS"
        yield Advice(level="error", code="nats_unreachable", text=text, fix=fix)
    else:
        yield from _of_server(facts.greeting)
        yield from _of_jetstream(facts)
    if facts.clock is not None:
        yield from _of_clock(facts.clock)


def _of_server(greeting: GreetingFacts) -> Iterator[Advice]:
    found = version_key(greeting.version)[:3]
    advised = ".".join(map(str, SAFE_SERVERS[-1]))
    fix = f"install nats-server {advised} or newer; upgrade a cluster one server at a time to lose nothing"
    if found < NEEDED_SERVER:
        needed = ".".join(map(str, NEEDED_SERVER[:2]))
        text = f"nats-server {greeting.version} is too old: the mesh needs {needed} or newer"
        yield Advice(level="error", code="server_old", text=text, fix=fix)
    elif not is_safe(found):
        text = f"nats-server {greeting.version} has known security holes: clients can bypass permissions"
        yield Advice(level="error", code="server_unsafe", text=text, fix=fix)
    size = greeting.max_payload_bytes
    if size < SMALL_PAYLOAD_BYTES:
        text = f"NATS takes messages of {size:,} bytes at most: longer prompts are refused"
        fix = "set max_payload to 1MB in nats-server's configuration"
        yield Advice(level="warning", code="payload_small", text=text, fix=fix)
    elif size > LARGE_PAYLOAD_BYTES:
        text = f"NATS takes messages of {size:,} bytes: a few large ones delay all tokens"
        fix = "set max_payload to 8MB or less in nats-server's configuration"
        yield Advice(level="warning", code="payload_large", text=text, fix=fix)


def is_safe(version: tuple[int, ...]) -> bool:
    """Returns whether this server version, (major, minor, patch), has no known security hole."""
    *older, newest = SAFE_SERVERS
    return version >= newest or any(each[:2] == version[:2] and version >= each for each in older)


def _of_jetstream(facts: Facts) -> Iterator[Advice]:
    if facts.account is None and facts.is_jetstream_away:
        text = "JetStream does not answer: too many servers of its cluster are away, and the others have no leader"
        fix = "bring them back; nats-server's log on each names the reason"
        yield Advice(level="error", code="no_leader", text=text, fix=fix)
        return
    if facts.account is None:
        has_it = facts.greeting is not None and facts.greeting.has_jetstream
        fix = (
            "enable it for this account: `jetstream: enabled` in its block of nats-server's configuration"
            if has_it
            else "start nats-server with -js and -sd DIR, or a `jetstream { store_dir: DIR }` block"
        )
        text = f"there is no JetStream here{f' ({facts.account_error})' if facts.account_error else ''}"
        yield Advice(level="error", code="no_jetstream", text=text, fix=fix)
        return
    yield from _of_account(facts.account, facts)


def _of_account(account: AccountFacts, facts: Facts) -> Iterator[Advice]:
    is_made = facts.mesh is not None and facts.mesh.exists
    room = account.max_streams - account.streams if account.max_streams else NEEDED_STREAMS
    if not is_made and room < NEEDED_STREAMS:
        text = f"this account may have {account.max_streams} streams and has {account.streams}; a mesh needs 7 more"
        fix = "raise max_streams in the account's JetStream limits"
        yield Advice(level="error", code="account_streams", text=text, fix=fix)
    lanes = facts.mesh.settings.lanes if facts.mesh is not None and facts.mesh.settings is not None else 4
    of_a_model = 3 * lanes
    if account.max_consumers and account.max_consumers - account.consumers < of_a_model:
        text = (
            f"this account may have {account.max_consumers} consumers and has {account.consumers}: "
            f"one more model is {of_a_model}"
        )
        fix = "raise max_consumers in the account's JetStream limits"
        yield Advice(level="warning", code="account_consumers", text=text, fix=fix)


def _of_clock(clock: ClockFacts) -> Iterator[Advice]:
    surely_ms = abs(clock.offset_ms) - clock.error_ms
    if surely_ms <= CLOCK_WARNING_MS:
        return
    way = "ahead of" if clock.offset_ms > 0 else "behind"
    text = f"this machine's clock is {abs(clock.offset_ms) / 1000:.1f} s {way} the server's, and so are its deadlines"
    fix = "synchronize both machines' clocks with NTP: `timedatectl set-ntp true`"
    level: Level = "error" if surely_ms > CLOCK_ERROR_MS else "warning"
    yield Advice(level=level, code="clock", text=text, fix=fix)
