"""How the tests start `mesh up`, and where its server is then."""

import re

from tests.cli.conftest import Running

UP = ("up", "--engine", "simulator", "--data", "data", "--port")


def url_of(up: Running) -> str:
    found = re.search(r"nats://[0-9.:]+", up.wait_for("nats-server ready: "))
    assert found is not None
    return found[0]
